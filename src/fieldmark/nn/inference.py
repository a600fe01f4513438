"""Run a finished encoder fast: reduced precision and fused layers, checked against fp32."""

import copy
import logging
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.nn import fused
from fieldmark.nn.losses import normalize
from fieldmark.nn.spec import EncoderSpec, freeze
from fieldmark.types import View

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_log = logging.getLogger("fieldmark")
LEAST_COSINE = 0.999
"""Reduced precision is used only when every checked embedding stays this close to fp32."""
_CHECKED = 8
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Runner:
    """Computes embeddings of one encoder on one device.

    Args:
        spec: The encoder; it is not changed.
        device: Where to compute.
        precision: ``auto`` takes the fastest kind of arithmetic that the hardware has and whose
            embeddings of the first photos stay within a cosine of ``LEAST_COSINE`` of fp32. One
            that is named and cannot be used is warned of, and fp32 used instead.

    Attributes:
        precision: What is used: ``fp32``, ``bf16`` or ``fp16``; None until decided.
    """

    def __init__(
        self, spec: EncoderSpec, device: torch.device, precision: Precision = "auto"
    ) -> None:
        self.device = device
        self._exact = freeze(copy.deepcopy(spec)).to(device).to(memory_format=torch.channels_last)
        self._fast: EncoderSpec | None = None
        self._asked = precision
        self.precision: str | None = "fp32" if precision == "fp32" else None
        self._seen = 0

    @torch.inference_mode()
    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """L2-normalised float32 embeddings of images in [0, 1]."""
        return self._exact.finish(self.raw(images)).float()

    @torch.inference_mode()
    def raw(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The same before whitening; how exactly is decided by the embeddings after it."""
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        if self.precision is None:
            self._seen += len(images)
            # Comparing costs a few forward passes: not worth it for a single photo.
            if len(images) >= 4 or self._seen > 16:
                with torch.inference_mode(mode=False):
                    self._decide(images[:_CHECKED].clone())
        if self._fast is None:
            return self._run(self._exact, images, torch.float32)
        result = self._run(self._fast, images, _TYPES[self.precision or "fp32"])
        if torch.isfinite(result).all():
            return result
        # fp16 overflows on rare photos.
        return self._run(self._exact, images, torch.float32)

    def _run(self, spec: EncoderSpec, images: Tensor, dtype: torch.dtype) -> Tensor:
        reduced = dtype != torch.float32 and self.device.type != "cpu"
        with torch.autocast(self.device.type, dtype if reduced else None, enabled=reduced):
            return spec.raw(images).float()

    def _finished(self, spec: EncoderSpec, images: Tensor, dtype: torch.dtype) -> Tensor:
        return self._exact.finish(self._run(spec, images, dtype)).float()

    @torch.no_grad()
    def _decide(self, images: Tensor) -> None:
        exact = self._finished(self._exact, images, torch.float32)
        asked = self._asked
        # Who asked for it must hear that it was not used; a trial that fails is no news.
        level = logging.DEBUG if asked == "auto" else logging.WARNING
        for name in _candidates(self.device) if asked == "auto" else [asked]:
            try:
                fast = self._accelerate(images, name)
                result = self._finished(fast, images, _TYPES[name])
            except (RuntimeError, TypeError, ValueError) as error:
                # The trial: torch's kernels refuse what the hardware or a layer cannot do.
                _log.log(level, "embedding in %s is not possible here: %s", name, error)
                continue
            cosine = float((result * exact).sum(1).min())
            # Asked for by name it may round more, but a layer fused wrongly is never accepted.
            if cosine >= (LEAST_COSINE if asked == "auto" else 0.9):
                self._fast, self.precision = fast, name
                return
            _log.log(level, "embedding in %s differs too much from fp32: cosine %.5f", name, cosine)
        self.precision = "fp32"

    def _accelerate(self, images: Tensor, name: str) -> EncoderSpec:
        spec = copy.deepcopy(self._exact)
        if self.device.type != "cpu":
            return spec
        # With what is inserted; its constants for normalising images stay as they are.
        network = nn.ModuleList([spec.backbone.network, spec.backbone.insertions])

        def run() -> object:
            return spec.raw(images)

        fused.fold_batch_norm(network, run)
        if name != "fp32":
            fused.keep_in_float32(network)
        spec.backbone.compute_dtype = _TYPES[name]
        network.to(_TYPES[name])
        spec.inserted.to(_TYPES[name])
        if fused.available():
            fused.fuse_layers(network, run)
        return spec.to(memory_format=torch.channels_last)


def embed_views(runner: Runner, views: Iterable[View], *, mirrored: bool) -> Float[Tensor, "B V E"]:
    """Unit vectors of every view of some photos, averaged with its mirror image's if asked."""
    parts = []
    for view in views:
        seen = runner(view.images)
        if mirrored:
            seen = seen + runner(view.images.flip(3))
        parts.append(normalize(seen).cpu())
    return torch.stack(parts, 1)


def _candidates(device: torch.device) -> list[str]:
    """Kinds of arithmetic to try, fastest first."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["bf16", "fp16"] if native else ["fp16"]
    if device.type != "cpu":
        return []
    found = []
    if _has("_is_amx_tile_supported") or _has("_is_avx512_bf16_supported"):
        found.append("bf16")
    half = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    if half is not None and half() and torch.backends.cpu.get_cpu_capability() == "AVX512":
        found.append("fp16")
    # Folding alone already saves a third for networks with batch-norm.
    return [*found, "fp32"]


def _has(feature: str) -> bool:
    probe = getattr(torch.cpu, feature, None)
    try:
        return bool(probe and probe())
    except RuntimeError:
        return False
