"""An exported encoder: one ONNX file that embeds photos with ONNX Runtime, without torch."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from fieldmark.backbones.provenance import Ledger
from fieldmark.data.look import short_side
from fieldmark.data.stream import Embedded, Lens, gather, stream
from fieldmark.errors import ArtifactError, ConfigError, InputError, MissingExtraError

FORMAT = "fieldmark-onnx"
FORMAT_VERSION = 1
_NEEDED = ("identity", "size", "crop", "dim", "licences")


class Outputs(NamedTuple):
    """What the graph gives for a batch."""

    embedding: Float[np.ndarray, "B D"]
    """Unit vectors."""
    probabilities: Float[np.ndarray, "B C"] | None
    """Of each class, where the file holds a classifier."""


class OnnxEncoder:
    """An encoder read from a file of ``fieldmark export``.

    Args:
        data: The file's bytes.
        name: How errors call it.
        threads: Of the arithmetic; by default one per processor.

    Attributes:
        metadata: Everything that the file says of itself.

    Raises:
        ArtifactError: If it is damaged, or was not written by fieldmark.
        MissingExtraError: Without onnxruntime.

    Example:
        >>> encoder = OnnxEncoder.load("birds.onnx")  # doctest: +SKIP
        >>> encoder.embed(["a.jpg", "b.jpg"]).shape  # doctest: +SKIP
        (2, 1280)
    """

    def __init__(self, data: bytes, *, name: str = "model", threads: int | None = None) -> None:
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or _processors()
        # What it has to say is said here, in a sentence.
        options.log_severity_level = 4
        check_whole(data, name)
        try:
            self._session = runtime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no class in common
            raise ArtifactError(
                f"ONNX Runtime {runtime.__version__} cannot read {name}: "
                f"{str(error).splitlines()[0][:200]}; export the encoder again with fieldmark export."
            ) from None
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        _check(self.metadata, name)
        self._short = short_side(self.size, self.crop)
        self._outputs = [output.name for output in self._session.get_outputs()]

    @classmethod
    def load(cls, file: str | Path, *, threads: int | None = None) -> "OnnxEncoder":
        """Read an ONNX file.

        Args:
            file: Written by ``fieldmark export``.
            threads: Of the arithmetic; by default one per processor.

        Raises:
            ArtifactError: If it is absent, damaged, or was not written by fieldmark.
            MissingExtraError: Without onnxruntime.
        """
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"{file} cannot be read ({error.strerror}); give a file of fieldmark export."
            ) from None
        return cls(data, name=str(file), threads=threads)

    @property
    def identity(self) -> str:
        """Identity of the encoder that it was made from, where it embeds alike; 64 hex digits."""
        return self.metadata["identity"]

    @property
    def size(self) -> int:
        """Side of the square that the network sees, in pixels."""
        return int(self.metadata["size"])

    @property
    def crop(self) -> float:
        """Share of the short side that the centre crop keeps."""
        return float(self.metadata["crop"])

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.metadata["dim"])

    @property
    def precision(self) -> str:
        """``fp32`` or ``int8``."""
        return self.metadata["precision"]

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the probabilities; none without a classifier."""
        return list(json.loads(self.metadata.get("classes", "[]")))

    @property
    def ledger(self) -> Ledger:
        """Licences of code, weights and photos, as far as they were told."""
        return Ledger.parse(json.loads(self.metadata["licences"]), "licences of the ONNX file")

    def run(self, image: UInt8[np.ndarray, "B H W 3"]) -> Outputs:
        """Embed decoded photos of one shape; resizing and cropping are done by the graph."""
        found = self._session.run(self._outputs, {"image": np.ascontiguousarray(image)})
        return Outputs(found[0], found[1] if len(found) > 1 else None)

    def embed(
        self, photos: Any, *, batch_size: int = 64, workers: int | None = None
    ) -> Float[np.ndarray, "N D"]:
        """Embed photos, in order.

        Args:
            photos: As for :meth:`fieldmark.Encoder.embed`: paths, bytes, arrays, a folder …
            batch_size: Photos per run of the graph.
            workers: Decoding threads; by default one per processor.

        Returns:
            float32 [N D], rows of length 1.

        Raises:
            PhotoError: Naming the first photo that cannot be read.
            InputError: If something is no photo at all.
        """
        return gather(self.stream(photos, batch_size=batch_size, workers=workers), self.dim)

    def stream(
        self,
        photos: Any,
        *,
        batch_size: int = 64,
        workers: int | None = None,
        rows: Sequence[int] | None = None,
    ) -> Iterator[Embedded]:
        """Like :meth:`embed`, one photo after another; bad photos are reported, not raised.

        Args:
            photos: As for :meth:`embed`.
            batch_size: Photos per run of the graph.
            workers: Decoding threads; by default one per processor.
            rows: Only these rows of a catalog, in this order.
        """
        return stream(
            photos,
            self.lens,
            lambda looks: self.run(self.framed(looks)).embedding,
            batch_size=batch_size,
            workers=workers,
            rows=rows,
        )

    def classify(
        self, photos: Any, *, batch_size: int = 64, workers: int | None = None
    ) -> Float[np.ndarray, "N C"]:
        """Probability of each class, for each photo.

        Args:
            photos: As for :meth:`embed`.
            batch_size: Photos per run of the graph.
            workers: Decoding threads; by default one per processor.

        Raises:
            ConfigError: If the file holds no classifier.
            PhotoError: Naming the first photo that cannot be read.
        """
        if "probabilities" not in self._outputs:
            raise ConfigError(
                "this ONNX file holds an encoder without classes; export the classifier folder of "
                "fieldmark finetune."
            )

        def probabilities(looks: list[Any]) -> Float[np.ndarray, "B C"]:
            found = self.run(self.framed(looks)).probabilities
            return np.zeros((len(looks), 0), np.float32) if found is None else found

        shares = stream(photos, self.lens, probabilities, batch_size=batch_size, workers=workers)
        return gather(shares, len(self.classes))

    @property
    def lens(self) -> Lens:
        """How it looks at photos."""
        return Lens(self.size, self.crop)

    def framed(self, looks: list[Any]) -> UInt8[np.ndarray, "B S S 3"]:
        """Looks in a frame that the graph cuts away, so that photos of all shapes share a batch.

        A square whose side is the short side that photos are resized to is not resized: weights of
        the graph's resize are then exactly 1 and 0.
        """
        images = np.stack([_bytes(look) for look in looks])
        before = int(np.rint((self._short - self.size) / 2))
        after = self._short - self.size - before
        return np.pad(images, ((0, 0), (before, after), (before, after), (0, 0)))


def sealed(body: bytes) -> bytes:
    """A model's bytes with a last entry of its metadata that holds their SHA-256.

    Protocol buffers may be joined end to end: readers of ONNX see one entry more.
    """
    return body + _seal(body)


def check_whole(data: bytes, name: str) -> None:
    """See whether a file is as it was written.

    Raises:
        ArtifactError: If it is not ONNX of fieldmark, cut short or changed.
    """
    length = len(_seal(b""))
    body, seal = data[:-length], data[-length:]
    if seal == _seal(body):
        return
    start = _seal(b"")[:-64]
    if FORMAT.encode() not in data and start not in data:
        raise ArtifactError(
            f"{name} was not written by fieldmark export (it begins with {data[:8]!r}); give a file of "
            "fieldmark export, or an encoder folder."
        )
    raise ArtifactError(
        f"{name} is damaged or cut short ({len(data)} bytes do not have the SHA-256 that its end "
        "should tell); copy it again, or export the encoder again."
    )


def _seal(body: bytes) -> bytes:
    # ModelProto.metadata_props (field 14) { key: "sha256" value: 64 hex digits }
    entry = b"\x0a\x06sha256\x12\x40" + hashlib.sha256(body).hexdigest().encode()
    return b"\x72" + bytes([len(entry)]) + entry


def _check(metadata: dict[str, str], name: str) -> None:
    try:
        if metadata["format"] != FORMAT:
            raise ValueError(f"format is {metadata['format']!r}")
        version = int(metadata["format_version"])
        missing = [key for key in _NEEDED if key not in metadata]
        if missing:
            raise ValueError(f"it does not tell {', '.join(missing)}")
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{name} was not written by fieldmark export ({error}); give a file of fieldmark export."
        ) from None
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{name} has format {version}, this fieldmark reads up to {FORMAT_VERSION}; "
            f"install fieldmark {metadata.get('fieldmark', 'newer')} or later."
        )


def _bytes(look: Any) -> UInt8[np.ndarray, "S S 3"]:
    if isinstance(look, np.ndarray):
        return look
    values = np.asarray(look.cpu(), np.float32)
    if values.ndim != 3:
        raise InputError(f"a look has three axes, got {values.shape}; give photos.")
    return np.rint(values.transpose(1, 2, 0) * 255).astype(np.uint8)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "to run ONNX files") from None
    return onnxruntime
