"""Processes, devices, threads, allocator and precision. Only this module touches torch.distributed."""

import ctypes
import os
import platform

import torch
import torch.distributed as dist
from torch import Tensor

from fieldmark.errors import InputError


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
