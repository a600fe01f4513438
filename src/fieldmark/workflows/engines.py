"""What computes embeddings: PyTorch, or ONNX Runtime where it is faster and says the same."""

import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from fieldmark.data.catalog import Catalog
from fieldmark.data.looktensor import stack
from fieldmark.data.stream import Embedded, look_of, sources
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, ConfigError, FieldmarkError
from fieldmark.export import LEAST_COSINE, export_onnx
from fieldmark.nn.inference import Precision
from fieldmark.onnx_encoder import OnnxEncoder

_log = logging.getLogger("fieldmark")
Engine = Literal["auto", "torch", "onnx"]
WORTH = 5000
"""Photos from which on an export, a few seconds, is tried for."""
CLEARLY = 1.1
"""ONNX Runtime must be this many times as fast: what is measured in a moment is not sure."""
_ROUNDS, _TRIED = 3, 32


@runtime_checkable
class Embeds(Protocol):
    """What embedding a catalog needs of an encoder."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    def identity(self) -> str:
        """Equal when two embed alike."""

    def stream(
        self,
        photos: Any,
        *,
        batch_size: int = 64,
        workers: int | None = None,
        rows: Sequence[int] | None = None,
    ) -> Iterator[Embedded]:
        """Embed photos one after another."""


class Chosen(NamedTuple):
    """An engine and why it."""

    encoder: Embeds
    name: str
    """``torch`` or ``onnx``."""
    why: str


def load(
    place: Path, *, engine: Engine, device: str, precision: Precision
) -> "Encoder | OnnxEncoder":
    """Read an encoder folder or an ONNX file.

    Raises:
        ArtifactError: If it cannot be used.
        ConfigError: If an ONNX file is to be computed otherwise than in ONNX Runtime on the CPU.
        MissingExtraError: For an ONNX file without onnxruntime.
    """
    if place.suffix != ".onnx":
        return Encoder.load(place, device=device, precision=precision)
    if engine == "torch" or device not in {"auto", "cpu"} or precision not in {"auto", "fp32"}:
        raise ConfigError(
            f"{place} runs in ONNX Runtime, on the CPU, as it was exported; got engine {engine}, device "
            f"{device}, precision {precision}. Leave these options out, or give the encoder folder."
        )
    return OnnxEncoder.load(place, threads=torch.get_num_threads())


def choose(
    encoder: Embeds,
    catalog: Catalog,
    engine: Engine,
    *,
    kept: Path,
    batch_size: int = 64,
) -> Chosen:
    """Decide what computes.

    Args:
        encoder: As :func:`load` gives it.
        catalog: What is to be embedded; its first photos are measured with.
        engine: ``auto`` takes ONNX Runtime when it is installed, the encoder computes on a CPU in
            ``auto`` precision, there are many photos, and it is faster and agrees (cosine
            ``LEAST_COSINE`` with PyTorch in fp32).
        kept: Where an export is kept, so that a job that goes on finds it.
        batch_size: Photos per forward pass.

    Raises:
        ArtifactError: If ``onnx`` was asked for and does not agree.
        ConfigError: If it cannot be used with these settings.
        MissingExtraError: If it was asked for and is not installed.
    """
    if isinstance(encoder, OnnxEncoder):
        return Chosen(encoder, "onnx", "the encoder is an ONNX file")
    if engine == "torch" or not isinstance(encoder, Encoder):
        return Chosen(encoder, "torch", "as asked")
    able = encoder.device.type == "cpu" and encoder.precision in {"auto", "fp32"}
    if engine == "onnx":
        if not able:
            raise ConfigError(
                f"engine onnx computes in fp32 on a CPU, got device {encoder.device} and precision "
                f"{encoder.precision}; add --device cpu and leave --precision out, or use engine torch."
            )
        return Chosen(_exported(encoder, kept), "onnx", "as asked")
    if kept.is_file():
        return Chosen(_exported(encoder, kept), "onnx", "as before")
    if not able or len(catalog) < WORTH or not _installed():
        return Chosen(encoder, "torch", "nothing else was tried")
    try:
        other = _exported(encoder, kept)
    except FieldmarkError as error:
        # A trial: that a network cannot be exported is no reason not to embed.
        _log.info("ONNX Runtime is not used: %s", error)
        return Chosen(encoder, "torch", "it cannot be exported")
    faster, why = _race(encoder, other, catalog, batch_size)
    if not faster:
        kept.unlink(missing_ok=True)
    _log.info("embedding with %s: %s", "ONNX Runtime" if faster else "PyTorch", why)
    return Chosen(other if faster else encoder, "onnx" if faster else "torch", why)


def _exported(encoder: Encoder, kept: Path) -> OnnxEncoder:
    if kept.is_file():
        try:
            found = OnnxEncoder.load(kept, threads=torch.get_num_threads())
            if found.identity == encoder.identity:
                return found
        except ArtifactError:
            pass
    export_onnx(encoder).save(kept)
    return OnnxEncoder.load(kept, threads=torch.get_num_threads())


def _installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def _race(
    encoder: Encoder, other: OnnxEncoder, catalog: Catalog, batch_size: int
) -> tuple[bool, str]:
    """Whether ONNX Runtime is clearly faster on the first photos, and says the same of them."""
    rows = range(min(len(catalog), 4 * _TRIED))
    looks = (look_of(item, other.lens) for item in enumerate(sources(catalog, rows)))
    images = [look.image for look in looks if look.image is not None]
    images = images[: min(_TRIED, batch_size)]
    if len(images) < 4:
        return False, "too few of the first photos can be read to compare"
    exact = Encoder(encoder.spec, device="cpu", precision="fp32").encode(stack(images)).numpy()
    found = other.run(other.framed(images)).embedding
    least = float((found * exact).sum(1).min())
    # Not "less than": a NaN must not pass.
    if not least >= LEAST_COSINE:
        return False, f"ONNX Runtime differs on these photos (cosine {least:.6f})"
    encoder.encode(stack(images))  # decides on the arithmetic
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        encoder.encode(stack(images))
        between = time.perf_counter()
        other.run(other.framed(images))
        seconds["torch"].append(between - began)
        seconds["onnx"].append(time.perf_counter() - between)
    # The best of each: what else the machine does only ever adds.
    ratio = min(seconds["torch"]) / min(seconds["onnx"])
    said = f"ONNX Runtime is {ratio:.2f} times as fast as PyTorch here (cosine {least:.6f})"
    return bool(np.isfinite(ratio) and ratio >= CLEARLY), said
