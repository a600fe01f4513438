"""Which arithmetic a network trains in, decided once by measuring and then kept with the run."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from fieldmark import runtime
from fieldmark.types import Batch, Progress, View

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_GAIN = 1.1
"""bf16 must be this much faster to be chosen: it costs bits."""
_PHOTOS = 32
"""Photos of the batch that the measurement uses, at most."""


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Run matrix products and convolutions in the given arithmetic; weights stay float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def decide(
    setting: Literal["auto", "fp32", "bf16", "fp16"],
    method: nn.Module,
    batch: Batch,
    device: torch.device,
) -> tuple[Precision, dict[str, float]]:
    """Choose the arithmetic.

    ``auto`` on a GPU is bf16 where the hardware has it, else fp16. On a CPU a few training steps
    are timed both ways, because it depends on processor and network: depthwise convolutions in bf16
    can be slower than in float32 even where matrix products are four times faster.

    Args:
        setting: What the user asked for; anything but ``auto`` is returned as it is.
        method: Left as it was, to the bit.
        batch: A real batch.
        device: Where it trains.

    Returns:
        The choice, and seconds per step of each arithmetic that was timed. With several processes
        the first one's choice is everyone's.
    """
    if setting != "auto":
        return setting, {}
    if device.type == "cuda":
        return ("bf16" if torch.cuda.is_bf16_supported() else "fp16"), {}
    if device.type != "cpu":
        return "fp32", {}
    few = first_photos(batch, _PHOTOS)
    seconds = {name: _time(method, few, name, device) for name in ("fp32", "bf16")}
    faster = seconds["bf16"] * _GAIN < seconds["fp32"]
    choice = int(runtime.broadcast(torch.tensor([int(faster)])).item())
    return ("bf16" if choice else "fp32"), seconds


def first_photos(batch: Batch, count: int) -> Batch:
    """The first photos of a batch."""
    views = tuple(View(*(field[:count] for field in view)) for view in batch.views)
    return Batch(views, batch.rows[:count], batch.key)


def _time(method: nn.Module, batch: Batch, precision: Precision, device: torch.device) -> float:
    buffers: list[tuple[Tensor, Tensor]] = [(b, b.clone()) for b in method.buffers()]
    best = float("inf")
    try:
        # The first round pays for memory and for kernels being prepared.
        for index in range(4):
            torch.manual_seed(batch.key)
            start = time.perf_counter()
            with autocast(precision, device):
                output = method(batch, Progress(0, 1, 0.0))
            output.loss.backward()
            took = time.perf_counter() - start
            method.zero_grad(set_to_none=True)
            best = took if index < 2 else min(best, took)
            if index and took > 2.0 and runtime.world_size() == 1:
                break
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        method.zero_grad(set_to_none=True)
    return best
