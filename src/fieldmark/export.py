"""An encoder as one ONNX file: photos of any shape in, embeddings out.

Resizing, cropping, normalising, the network, pooling, the mirrored pass and whitening are all in
the graph, so a program in any language embeds as fieldmark does, without fieldmark. A file is made
only when ONNX Runtime computes with it what PyTorch computes.
"""

import contextlib
import copy
import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, no_type_check

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

import fieldmark
from fieldmark import storage
from fieldmark.data.aviary import AviaryConfig, draw
from fieldmark.data.look import look_at, short_side
from fieldmark.data.looktensor import stack
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, InputError, MissingExtraError
from fieldmark.nn.classifier import ClassHead, EmbeddingHead
from fieldmark.nn.spec import EncoderSpec, freeze
from fieldmark.nn.whitening import normalise
from fieldmark.onnx_encoder import FORMAT, FORMAT_VERSION, OnnxEncoder, sealed

LEAST_COSINE = 0.9999
"""An exported encoder embeds every checked photo this closely, or it is not written."""
MOST_DIFFERENCE = 0.02
"""And gives every class a probability that differs by no more: steep heads magnify rounding."""
OPSET = 20
_ONE = 2.0**22
"""Weight 1 in Pillow's fixed point for 8-bit images."""
_SHAPES = ((96, 128), (128, 80), (64, 64), (24, 120), (128, 17), (9, 9), (1, 1))
_BATCH = 5
Pixels = UInt8[np.ndarray, "_ _ 3"]
Quantisation = Literal["static", "dynamic"]
# While the graph is recorded a side is a symbol.
Length = int | torch.SymInt


class Look(nn.Module):
    """What the encoder sees of decoded photos: resized, cut, in [0, 1].

    ``look_at`` as two matrix products, to the bit: Pillow's weights in its fixed point, and its
    rounding to whole levels after each axis. A network may amplify one level at an edge a hundred
    times. Shapes are read inside, so that one graph takes photos of all.

    Args:
        size: Side of the square, in pixels.
        crop: Share of the short side that is kept, in (0, 1].
    """

    def __init__(self, size: int, crop: float) -> None:
        super().__init__()
        self.size = size
        self.short = short_side(size, crop)

    def forward(self, image: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 S S"]:
        """Resize and cut."""
        height, width = image.shape[1], image.shape[2]
        shorter = torch.sym_min(height, width)
        # Sums of 8-bit levels times 22-bit weights are exact in float64.
        x = image.permute(0, 3, 1, 2).double()
        maps = self._map(height, shorter), self._map(width, shorter)
        if torch.compiler.is_exporting():
            sides = [torch.scalar_tensor(side, dtype=torch.int64) for side in (height, width)]
            upright = (sides[0] > self.size) & (sides[0] - self.size > 2 * (sides[1] - self.size))
            seen = torch.cond(upright, _rows_first, _columns_first, (x, *maps))
        elif height > self.size and height - self.size > 2 * (width - self.size):
            seen = _rows_first(x, *maps)
        else:
            seen = _columns_first(x, *maps)
        return seen.float() / 255

    def _map(self, length: Length, shorter: Length) -> Float[Tensor, "S L"]:
        resized = self.short * length // shorter
        whole, scaled = (torch.scalar_tensor(s, dtype=torch.float64) for s in (length, resized))
        skipped = torch.round((scaled - self.size) / 2)
        # Pillow takes the window's ends, and their distance, in single precision.
        first = (skipped * whole / scaled).float()
        last = ((skipped + self.size) * whole / scaled).float()
        step = (last - first).double() / self.size
        centre = first.double() + (torch.arange(self.size, dtype=torch.float64) + 0.5) * step
        place = torch.arange(length, dtype=torch.float64) + 0.5
        # The triangle is as wide as a pixel of the result when shrinking.
        weight = torch.relu(1 - (place[None] - centre[:, None]).abs() / step.clamp(min=1))
        return torch.floor(weight / weight.sum(1, keepdim=True) * _ONE + 0.5)


# Pillow (13) begins with the rows where a photo is upright, with the columns else; what is rounded
# in between differs. Types are not checked while a branch is recorded.
@no_type_check
def _columns_first(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _levels(rows @ _levels(x @ columns.T))


@no_type_check
def _rows_first(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _levels(_levels(rows @ x) @ columns.T)


@no_type_check
def _levels(x: Tensor) -> Tensor:
    return torch.floor((x + _ONE / 2) / _ONE)


class Graph(nn.Module):
    """Everything that the file computes.

    Args:
        spec: The encoder.
        head: Linear layer to class logits, of the pooled feature as it is or of the embedding.
    """

    def __init__(self, spec: EncoderSpec, head: ClassHead | EmbeddingHead | None = None) -> None:
        super().__init__()
        self.look = Look(spec.size, spec.crop)
        self.spec = spec
        self.head = head

    def forward(self, image: UInt8[Tensor, "B H W 3"]) -> tuple[Tensor, ...]:
        """Embeddings, and probabilities of classes where there is a head."""
        return self.seen(self.look(image))

    def seen(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Tensor, ...]:
        """The same of images that are ready."""
        spec = self.spec
        pooled = spec.readout(spec.features(images))
        raw = normalise(pooled)
        if spec.post.flip:
            raw = normalise(raw + normalise(spec.readout(spec.features(images.flip(3)))))
        embedding = spec.finish(raw).float()
        if self.head is None:
            return (embedding,)
        seen = embedding if isinstance(self.head, EmbeddingHead) else pooled
        return embedding, self.head(seen).float().softmax(1)


class Parity(NamedTuple):
    """How closely ONNX Runtime follows PyTorch in fp32."""

    photos: int
    least: float
    """Smallest cosine of the two embeddings of a photo."""
    mean: float
    probability: float = 0.0
    """Largest difference of a class's two probabilities."""

    @property
    def holds(self) -> bool:
        """Whether the two count as the same encoder; NaN does not."""
        return self.least >= LEAST_COSINE and self.probability <= MOST_DIFFERENCE

    def sentence(self) -> str:
        """For people."""
        return (
            f"ONNX Runtime and PyTorch agree on {self.photos} photos: smallest cosine "
            f"{self.least:.6f}, mean {self.mean:.6f}."
        )


class Exported(NamedTuple):
    """A checked model that is not on disk yet."""

    model: Any
    """``onnx.ModelProto``."""
    metadata: dict[str, str]
    """What the file will say of itself."""
    backbone: list[str]
    """Names of the nodes that belong to the network itself."""

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        onnx = _onnx()
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        onnx.helper.set_model_props(model, self.metadata)
        return sealed(model.SerializeToString(deterministic=True))

    def encoder(self, *, threads: int | None = None) -> OnnxEncoder:
        """Run it without writing it."""
        return OnnxEncoder(self.data, name="the exported model", threads=threads)

    def telling(self, **facts: str) -> "Exported":
        """The same, with more in its metadata."""
        return self._replace(metadata={**self.metadata, **facts})

    def save(self, file: str | Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OutputError: If it cannot be written there.
            StorageError: If the disk is full.
        """
        target = Path(file)
        storage.make_folder(target.parent)
        storage.write_bytes(target, self.data)


def export_onnx(
    encoder: Encoder,
    *,
    head: ClassHead | EmbeddingHead | None = None,
    classes: Sequence[str] = (),
    photos: Iterable[Pixels] | None = None,
) -> Exported:
    """Turn an encoder into an ONNX model, and check that it computes the same.

    The graph takes ``image``, uint8 [B H W 3], and gives ``embedding``, float32 [B D], and with a
    head ``probabilities``, float32 [B C]. Batch, height and width are free.

    Args:
        encoder: What to export.
        head: Of a fine-tuned classifier, or of a few labels.
        classes: Names of its classes.
        photos: Decoded photos to check with; None: birds drawn here, in several shapes.

    Raises:
        ArtifactError: If the network cannot be exported, or ONNX Runtime computes something else;
            the worst figure is told.
        MissingExtraError: Without onnx, onnxscript or onnxruntime.
    """
    spec = freeze(copy.deepcopy(encoder.spec)).to("cpu")
    graph = Graph(spec, None if head is None else copy.deepcopy(head).to("cpu")).eval()
    graph.requires_grad_(False)
    model = _convert(graph, str(spec.backbone.config.name))
    backbone = _clean(model)
    metadata = _metadata(encoder, classes if head is not None else ())
    exported = Exported(model, metadata, backbone)
    found = compare(exported.encoder(), graph, list(photos or probe_photos()))
    if not found.holds:
        raise ArtifactError(
            f"the exported model does not compute what the encoder computes: of {found.photos} photos "
            f"the worst has a cosine of {found.least:.6f} between ONNX Runtime and PyTorch (at least "
            f"{LEAST_COSINE} is needed) and probabilities differ by up to {found.probability:.4f} (at "
            f"most {MOST_DIFFERENCE}); nothing was written. Another version of onnxruntime or torch may "
            "help; fieldmark embed does without an export."
        )
    return exported.telling(parity=json.dumps(found._asdict()))


def probe_photos() -> list[Pixels]:
    """Drawn birds in several shapes: wide, tall, small, one pixel, and a batch of one shape."""
    count = len(_SHAPES) + _BATCH
    birds = draw(AviaryConfig(species=count, per_species=1, size=128)).images
    odd = [
        np.asarray(Image.fromarray(bird).resize((width, height), Image.Resampling.BICUBIC))
        for bird, (height, width) in zip(birds, _SHAPES, strict=False)
    ]
    return [*odd, *birds[len(_SHAPES) :]]


def compare(exported: OnnxEncoder, graph: Graph, photos: Sequence[Pixels]) -> Parity:
    """Embed photos with ONNX Runtime and with PyTorch, each on its own and several at once.

    Args:
        exported: What runs in ONNX Runtime; it resizes and crops for itself.
        graph: What runs in PyTorch, in fp32, after ``look_at``.
        photos: Decoded photos of any shapes.
    """
    if not len(photos):
        raise InputError("checking an export needs at least one photo; give some that can be read.")
    size, crop = graph.spec.size, graph.spec.crop
    cosines: list[float] = []
    worst = 0.0
    same = [photo for photo in photos if photo.shape == photos[-1].shape][-_BATCH:]
    for batch in (*([photo] for photo in photos), same):
        found = exported.run(np.stack(batch))
        with torch.inference_mode():
            told = graph.seen(stack([look_at(photo, size, crop) for photo in batch]))
        cosines += (found.embedding * told[0].numpy()).sum(1).tolist()
        if found.probabilities is not None:
            worst = max(worst, float(np.abs(found.probabilities - told[1].numpy()).max()))
    values = np.asarray(cosines)
    return Parity(len(photos), float(values.min()), float(values.mean()), worst)


def quantise(exported: Exported, photos: Sequence[Pixels], *, kind: Quantisation) -> Exported:
    """The same network with 8-bit weights and arithmetic.

    Resizing, pooling, whitening and the head stay in fp32: they cost little and lose much.

    Args:
        exported: The model in fp32.
        photos: Decoded photos that ranges are measured on; what they show is not learnt.
        kind: ``static``: ranges of activations are fixed beforehand (convolutional networks).
            ``dynamic``: measured for every photo anew (transformers).

    Returns:
        A model of an identity of its own: it does not embed as the encoder does.

    Raises:
        ArtifactError: If ONNX Runtime cannot quantise it.
        MissingExtraError: Without onnxruntime.
    """
    _onnx()
    from onnxruntime import quantization

    runner = exported.encoder()
    other = [node.name for node in exported.model.graph.node if node.name not in exported.backbone]
    with tempfile.TemporaryDirectory(prefix="fieldmark-") as place, _without_advice():
        file = Path(place) / "int8.onnx"
        model = _onnx().ModelProto()
        model.CopyFrom(exported.model)
        try:
            if kind == "dynamic":
                quantization.quantize_dynamic(
                    model, file, per_channel=True, nodes_to_exclude=other,
                    op_types_to_quantize=["MatMul", "Gemm"],
                )  # fmt: skip
            else:
                quantization.quantize_static(
                    model, file, _calibration(runner, photos), per_channel=True,
                    nodes_to_exclude=other, op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add"],
                )  # fmt: skip
            data = file.read_bytes()
        except Exception as error:  # the quantiser raises from many places
            raise ArtifactError(
                f"ONNX Runtime cannot quantise '{exported.metadata['network']}' ({type(error).__name__}: "
                f"{str(error)[:200]}); export it without --int8."
            ) from None
    digest = hashlib.sha256(data).hexdigest()
    told = f"{exported.metadata['identity']} int8 {digest}"
    return Exported(
        _onnx().load_model_from_string(data),
        {
            **exported.metadata,
            "precision": "int8",
            "identity": hashlib.sha256(told.encode()).hexdigest(),
            "made_from": exported.metadata["identity"],
        },
        exported.backbone,
    )


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """The quantiser recommends, by logging and warning, what was done to the model already."""
    root = logging.getLogger()

    def serious(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    root.addFilter(serious)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(serious)


def _calibration(runner: OnnxEncoder, photos: Sequence[Pixels]) -> Any:
    """The quantiser's reader: prepared photos, one at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    def feeds() -> Iterator[dict[str, Any]]:
        for photo in photos:
            look = look_at(photo, runner.size, runner.crop)
            yield {"image": runner.framed([look])}

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

        def rewind(self) -> None:
            self._feeds = feeds()

    return Reader()


def _convert(graph: Graph, name: str) -> Any:
    _onnx()
    size = graph.spec.size
    # Neither square nor of the network's size, so that nothing is taken for a constant.
    example = torch.zeros(2, size + 9, size + 30, 3, dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    outputs = ["embedding"] if graph.head is None else ["embedding", "probabilities"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=outputs,
                dynamic_shapes={"image": {0: free, 1: free, 2: free}},
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # each operator has failures of its own
            raise ArtifactError(
                f"'{name}' cannot be exported with torch {torch.__version__} ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:200]}); embed with the encoder folder instead."
            ) from None
    if program is None:
        raise ArtifactError(f"'{name}' cannot be exported: torch.onnx gave nothing.")
    return program.model_proto


def _clean(model: Any) -> list[str]:
    """Take out what tells of the machine that exported; name the free axes.

    Returns:
        Names of the network's own nodes.
    """
    backbone = []
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}
        if "'spec.backbone'" in scopes.get("pkg.torch.onnx.name_scopes", ""):
            backbone.append(node.name)
    old = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    names = dict(zip(old, ("batch", "height", "width"), strict=False))
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    # Shapes in between are inferred anew by whoever wants them.
    del model.graph.value_info[:]
    del model.metadata_props[:]
    _forget(model.graph)
    for function in model.functions:
        _forget(function)
    return backbone


def _forget(graph: Any) -> None:
    del graph.metadata_props[:]
    graph.ClearField("doc_string")
    for tensor in getattr(graph, "initializer", ()):
        del tensor.metadata_props[:]
        tensor.ClearField("doc_string")
    for node in graph.node:
        # Lines of source, with the folders that they lie in.
        del node.metadata_props[:]
        node.ClearField("doc_string")
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _forget(inner)


def _metadata(encoder: Encoder, classes: Sequence[str]) -> dict[str, str]:
    config = encoder.spec.backbone.config
    found = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "fieldmark": fieldmark.__version__,
        "identity": encoder.identity,
        "network": str(config.name),
        "precision": "fp32",
        "size": str(encoder.size),
        "crop": repr(encoder.spec.crop),
        "dim": str(encoder.dim),
        "mean": json.dumps(config.mean),
        "std": json.dumps(config.std),
        "post": json.dumps(encoder.post.dump()),
        "provenance": json.dumps(encoder.provenance.dump()),
        "licences": json.dumps(encoder.ledger.dump()),
    }
    if classes:
        found["classes"] = json.dumps(list(classes), ensure_ascii=False)
    return found


def _onnx() -> Any:
    for package in ("onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "onnx", "to export encoders") from None
    import onnx

    return onnx
