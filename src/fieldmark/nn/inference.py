"""Run a finished encoder fast: reduced precision and folded batch-norm, checked against fp32."""

import copy
import logging
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmark.nn.spec import EncoderSpec, freeze

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_log = logging.getLogger("fieldmark")
LEAST_COSINE = 0.999
"""Reduced precision is used only when every checked embedding stays this close to fp32."""


class Runner:
    """Computes embeddings of one encoder on one device.

    Args:
        spec: The encoder; it is not changed.
        device: Where to compute.
        precision: ``auto`` takes bf16 (fp16 on older GPUs) where the hardware has it and the first
            batch's embeddings stay within a cosine of ``LEAST_COSINE`` of fp32.
    """

    def __init__(
        self, spec: EncoderSpec, device: torch.device, precision: Precision = "auto"
    ) -> None:
        self.device = device
        self.spec = freeze(copy.deepcopy(spec)).to(device)
        self.spec.to(memory_format=torch.channels_last)
        self.dtype: torch.dtype | None = {
            "fp32": None,
            "auto": _fast_type(device),
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
        }[precision]
        self._unchecked = precision == "auto" and self.dtype is not None

    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """L2-normalised float32 embeddings of images in [0, 1]."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        if self._unchecked:
            self._check(images)
        return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            raw = self.spec.raw(images)
        return self.spec.finish(raw).float()

    def _check(self, images: Tensor) -> None:
        self._unchecked = False
        few = images[:8]
        fast = self._run(few)
        chosen, self.dtype = self.dtype, None
        cosine = float((fast * self._run(few)).sum(1).min())
        if cosine >= LEAST_COSINE:
            self.dtype = chosen
        else:
            _log.info("embedding in fp32: %s differs too much (cosine %.5f)", chosen, cosine)


def _fast_type(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if probe() else None
    return None
