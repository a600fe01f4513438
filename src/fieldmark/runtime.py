"""Processes, devices, threads, allocator and precision. Only this module touches torch.distributed."""

import contextlib
import ctypes
import datetime
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fieldmark.errors import InputError

_TIMEOUT = datetime.timedelta(minutes=30)


def _from_environment() -> tuple[int, int, int] | None:
    """Rank, world size and local rank as torchrun or SLURM announce them."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", "0"))
    if "SLURM_PROCID" in env and "SLURM_NTASKS" in env and "MASTER_ADDR" in env:
        # srun also sets these for single tasks and inside interactive shells; without a
        # rendezvous address there is no group to join.
        local = int(env.get("SLURM_LOCALID", "0"))
        os.environ.setdefault("LOCAL_RANK", str(local))
        return int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"]), local
    return None


def start_processes(
    *,
    device: torch.device | str = "cpu",
    rendezvous: str | None = None,
    rank: int | None = None,
    world: int | None = None,
    timeout_seconds: float | None = None,
) -> bool:
    """Join the process group, if this program was started as one of several.

    Rank and world size come from the arguments, else from torchrun's or SLURM's environment
    (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``; ``SLURM_PROCID``, ``SLURM_NTASKS``,
    ``SLURM_LOCALID`` with ``MASTER_ADDR`` and ``MASTER_PORT``).

    Args:
        device: Kind of device that computes; NCCL on CUDA, gloo elsewhere.
        rendezvous: Where processes find each other; ``file:///path`` needs no network.
            Default: ``MASTER_ADDR`` and ``MASTER_PORT``.
        rank: This process, 0 to ``world`` - 1.
        world: Number of processes.
        timeout_seconds: How long a collective may wait for the others.

    Returns:
        Whether a group of more than one process was started or already ran.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size() > 1
    if rank is None or world is None:
        found = _from_environment()
        if found is None:
            return False
        rank, world, _ = found
    if world <= 1:
        return False
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
    timeout = datetime.timedelta(seconds=timeout_seconds) if timeout_seconds else _TIMEOUT
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=rendezvous or "env://",
        rank=rank,
        world_size=world,
        timeout=timeout,
    )
    return True


def stop_processes() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def processes(**settings: Any) -> Iterator[None]:
    """Join the process group for a block; see :func:`start_processes`.

    Inside another such block nothing happens: the outer one leaves the group.
    """
    joined = dist.is_available() and dist.is_initialized()
    start_processes(**settings)
    try:
        yield
    finally:
        if not joined:
            stop_processes()


def rank() -> int:
    """This process's rank; 0 when there is one process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """Concatenate a tensor over processes in rank order, without gradient.

    Every process must pass the same shape. With one process the tensor itself comes back.
    """
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[0]
        return gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every process's loss depends on this process's rows, so their gradients are summed.
        # DistributedDataParallel then divides by the number of processes, which makes the whole
        # the gradient of the mean of the processes' losses.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.narrow(0, rank() * ctx.size, ctx.size)


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate over processes in rank order; gradients flow back to every process's rows.

    For losses that contrast the whole batch. Every process must pass the same shape.
    """
    return x if world_size() == 1 else _Gather.apply(x)


def all_reduce(x: Tensor, how: str = "sum") -> Tensor:
    """Combine a tensor over processes, without gradient; the argument is not changed.

    Args:
        x: Same shape on every process.
        how: ``sum``, ``mean`` or ``max``.
    """
    if world_size() == 1:
        return x
    x = x.detach().clone()
    dist.all_reduce(x, dist.ReduceOp.MAX if how == "max" else dist.ReduceOp.SUM)
    return x / world_size() if how == "mean" else x


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return all_reduce(grad)


def sum_with_gradient(x: Tensor) -> Tensor:
    """Sum over processes; the gradient is summed over processes too (synchronised statistics)."""
    return x if world_size() == 1 else _Sum.apply(x)


def broadcast(x: Tensor, source: int = 0) -> Tensor:
    """The tensor of one process, on all of them; written into ``x``."""
    if world_size() > 1:
        dist.broadcast(x, source)
    return x


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def data_parallel(module: nn.Module) -> nn.Module:
    """Average gradients over processes when the module's ``forward`` is the loss.

    Buffers are left alone: a queue is the same everywhere because keys are gathered, and
    batch-norm statistics belong to the process that saw the images. At the start both are made
    equal to the first process's.
    """
    if world_size() == 1:
        return module
    for tensor in [*module.parameters(), *module.buffers()]:
        broadcast(tensor.data)
    device = next(module.parameters()).device
    with warnings.catch_warnings():
        # Its successor is not in all the versions of torch that we run with.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return nn.parallel.DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


def no_gradient_averaging(module: nn.Module) -> AbstractContextManager[None]:
    """Leave out the averaging of gradients, for all but the last of accumulated micro-batches."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what was asked of it; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def processor_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str = "auto") -> torch.device:
    """Choose where to compute.

    Args:
        name: ``auto`` (CUDA, then Apple MPS, then CPU), or any torch device such as ``cuda:1``.

    Raises:
        InputError: If the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device '{name}' cannot be used here ({str(error).splitlines()[0]}); "
            "use auto, cpu, or cuda where a GPU is present."
        ) from None
    return device


def tune_allocator() -> bool:
    """Keep large CPU buffers mapped between training steps.

    glibc gives every large tensor back to the kernel when it is freed; the next step pays a page
    fault for each 4 KiB of it, which dominates CPU training at large batch sizes.

    Returns:
        Whether the setting was applied (Linux with glibc only).
    """
    if platform.system() != "Linux":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h
        # mallopt takes an int; the largest one keeps everything.
        return bool(libc.mallopt(mmap, 2**31 - 1)) and bool(libc.mallopt(trim, 2**31 - 1))
    except (OSError, AttributeError):
        return False
