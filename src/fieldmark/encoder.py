"""The artifact: an encoder that loads anywhere and turns photos into embeddings.

Nothing here imports training code, and nothing on disk is a pickle.
"""

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import Tensor

import fieldmark
from fieldmark import hub, runtime, storage
from fieldmark.backbones.provenance import Ledger, Provenance, ledger
from fieldmark.backbones.weights import read_tensors
from fieldmark.data.catalog import Catalog
from fieldmark.data.looktensor import stack
from fieldmark.data.stream import Embedded, Lens, gather, look_of, sources, stream
from fieldmark.data.views import Photos, center_views
from fieldmark.errors import ArtifactError, InputError, OutputError
from fieldmark.nn.inference import Precision, Runner
from fieldmark.nn.spec import EncoderSpec, PostConfig, freeze

FORMAT = "fieldmark-encoder"
FORMAT_VERSION = 1
_TENSORS, _CARD, _README = "encoder.safetensors", "encoder.json", "README.md"


class Layout(NamedTuple):
    """Names of an encoder's two files; what is in them is the same."""

    card: str
    tensors: str


PLAIN = Layout(_CARD, _TENSORS)
HUB = Layout("config.json", "model.safetensors")
"""As model hubs expect them."""

Embeddings = Float[np.ndarray, "N D"]
Photo = str | Path | bytes | npt.NDArray[Any] | Tensor | Image.Image


class Encoder:
    """An image encoder with its post-processing and history.

    Args:
        spec: What is computed; copied, so a network in training is left alone.
        card: Plain data for people and tools: ``recipe``, ``metrics``, ``role``, anything.
        device: Where to compute; ``auto`` takes a GPU if there is one.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    Example:
        >>> encoder = Encoder.load("run/encoder")  # doctest: +SKIP
        >>> encoder.embed(["a.jpg", "b.jpg"]).shape  # doctest: +SKIP
        (2, 1280)
    """

    def __init__(
        self,
        spec: EncoderSpec,
        card: dict[str, Any] | None = None,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
    ) -> None:
        # A copy: the spec may hold a network that is still being trained.
        self.spec = freeze(copy.deepcopy(spec))
        self.card = dict(card or {})
        self.device = runtime.pick_device(str(device))
        self.precision = precision
        self._runner: Runner | None = None
        self._identity: str | None = None

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        return self.spec.size

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.spec.dim

    @property
    def post(self) -> PostConfig:
        """Post-processing that every embedding goes through."""
        return self.spec.post

    @property
    def provenance(self) -> Provenance:
        """Where the starting weights came from and what they have seen."""
        return self.spec.backbone.provenance

    @property
    def ledger(self) -> Ledger:
        """Licences of code, weights and photos, as far as they were told."""
        return _ledger(self.spec.backbone.provenance, self.card, self.spec.whitening is not None)

    @property
    def identity(self) -> str:
        """Hash of weights and settings: equal when two encoders embed alike. 64 hex digits."""
        if self._identity is None:
            self._identity = _identity(self.spec, hashlib.sha256(_tensors(self.spec)).hexdigest())
        return self._identity

    def save(self, folder: str | Path) -> None:
        """Write ``encoder.safetensors``, ``encoder.json`` and ``README.md``, whole or not at all.

        Raises:
            OutputError: If the folder holds something else, or cannot be written.
            StorageError: If the disk is full.
        """
        self._save(Path(folder), PLAIN)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the same under the names that model hubs expect.

        ``config.json``, ``model.safetensors``, and a ``README.md`` whose head a hub reads.
        ``Encoder.load`` takes either folder.

        Raises:
            OutputError: If the folder holds something else, or cannot be written.
            StorageError: If the disk is full.
        """
        self._save(Path(folder), HUB)

    def push_to_hub(
        self, name: str, *, private: bool = True, message: str = "Encoder by fieldmark"
    ) -> str:
        """Upload to a model hub what :meth:`save_pretrained` writes.

        Args:
            name: ``owner/name``; created where it is not there.
            private: Whether a repository that is created can be seen by its owner alone.
            message: Of the commit.

        Returns:
            Where it is now.

        Raises:
            OutputError: If the name is none, the program is told to stay offline, or the hub refuses.
            MissingExtraError: Without huggingface_hub.
        """
        with tempfile.TemporaryDirectory(prefix="fieldmark-") as place:
            folder = Path(place) / "encoder"
            self.save_pretrained(folder)
            return hub.push(folder, name, private=private, message=message)

    def _save(self, target: Path, layout: Layout) -> None:
        _check_target(target, layout)
        tensors = _tensors(self.spec)
        digest = hashlib.sha256(tensors).hexdigest()
        self._identity = _identity(self.spec, digest)
        card = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "fieldmark": fieldmark.__version__,
            "identity": self._identity,
            "weights_sha256": digest,
            "spec": self.spec.describe(),
            "licences": self.ledger.dump(),
            "card": self.card,
        }
        text = json.dumps(card, indent=2, allow_nan=False) + "\n"
        page = _describe(card, self.ledger, layout)
        storage.make_folder(target.parent)
        aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
        with storage.storage_errors(target):
            shutil.rmtree(aside, ignore_errors=True)
            try:
                aside.mkdir()
                storage.write_bytes(aside / layout.tensors, tensors)
                storage.write_text(aside / _README, page)
                storage.write_text(aside / layout.card, text)
                _swap(aside, target)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
    ) -> "Encoder":
        """Read an encoder folder (of either layout), or a run folder that contains ``encoder``.

        Raises:
            ArtifactError: If it is absent, damaged, or from a newer fieldmark.
        """
        place, layout = _find(Path(folder))
        card = _read_card(place / layout.card)
        file = place / layout.tensors
        if not file.is_file():
            raise ArtifactError(
                f"{place} has no {layout.tensors}; the encoder is incomplete, copy it again."
            )
        digest = storage.sha256_of(file)
        if digest != card["weights_sha256"]:
            raise ArtifactError(
                f"{file} is damaged or belongs to another encoder: its hash is {digest[:12]}…, "
                f"{layout.card} says {str(card['weights_sha256'])[:12]}…; copy the whole folder again."
            )
        try:
            spec = EncoderSpec.rebuild(card["spec"])
            spec.load_state_dict(read_tensors(file))
        except (InputError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            detail = str(error).splitlines()[0][:300]
            raise ArtifactError(
                f"{place} cannot be rebuilt: {detail} It was written by fieldmark "
                f"{card.get('fieldmark', 'unknown')}, this is {fieldmark.__version__}."
            ) from None
        encoder = cls(spec, card.get("card") or {}, device=device, precision=precision)
        encoder._identity = _identity(spec, digest)
        return encoder

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        download: bool | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
    ) -> "Encoder":
        """Read a folder, or an encoder of a model hub that lies in the local cache.

        Args:
            name: Folder, or ``owner/name`` on the hub.
            download: Whether the network may be used for a name; None: where the variable
                ``FIELDMARK_ALLOW_DOWNLOAD`` says so.
            device: Where to compute.
            precision: As for the class.

        Raises:
            ArtifactError: If it is absent, damaged, or from a newer fieldmark.
            MissingExtraError: For a name without huggingface_hub.
        """
        known = Path(name).exists() or not hub.is_name(str(name))
        place = Path(name) if known else hub.fetch(str(name), download=download)
        return cls.load(place, device=device, precision=precision)

    def embed(
        self,
        photos: "Photo | Catalog | Iterable[Photo]",
        *,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> Embeddings:
        """Embed photos, in order.

        Args:
            photos: Paths, encoded bytes, uint8 arrays [H W 3], tensors [3 H W] (uint8, or float in
                [0, 1]), PIL images; any iterable of them, a stacked array or tensor, a folder,
                table or shard, or a catalog. All are resized and cropped alike.
            batch_size: Photos per forward pass.
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
        photos: "Photo | Catalog | Iterable[Photo]",
        *,
        batch_size: int = 64,
        workers: int | None = None,
        rows: Sequence[int] | None = None,
    ) -> Iterator[Embedded]:
        """Like :meth:`embed`, one photo after another; bad photos are reported, not raised.

        Memory holds a few batches, whatever the number of photos.

        Args:
            photos: As for :meth:`embed`.
            batch_size: Photos per forward pass.
            workers: Decoding threads; by default one per processor.
            rows: Only these rows of a catalog, in this order.
        """
        return stream(
            photos,
            self._lens,
            lambda looks: self.encode(stack(looks)).cpu().numpy(),
            batch_size=batch_size,
            workers=workers,
            rows=rows,
        )

    @property
    def _lens(self) -> Lens:
        return Lens(self.size, self.spec.crop)

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Embed images that are ready: square, of the encoder's size, in [0, 1]."""
        return self._run()(images)

    def _run(self) -> Runner:
        if self._runner is None:
            self._runner = Runner(self.spec, self.device, self.precision)
        return self._runner

    def embed_store(
        self,
        store: Photos,
        rows: Int[np.ndarray, " N"],
        *,
        batch_size: int = 64,
        whitened: bool = True,
    ) -> Embeddings:
        """Embed rows of a photo store.

        Args:
            store: Decoded photos.
            rows: Catalog rows.
            batch_size: Photos per forward pass.
            whitened: False stops before whitening; :meth:`whiten` does the rest.
        """
        encode = self.encode if whitened else self._run().raw
        result = np.empty((len(rows), self.dim if whitened else self.spec.raw_dim), np.float32)
        for start in range(0, len(rows), batch_size):
            part = np.asarray(rows[start : start + batch_size], dtype=np.int64)
            view = center_views(store, part, self.size, self.spec.crop, device=self.device)
            result[start : start + len(part)] = encode(view.images).cpu().numpy()
        return result

    @torch.inference_mode()
    def whiten(self, raw: Embeddings) -> Float[np.ndarray, "N E"]:
        """Embeddings, from what ``embed_store`` returns with ``whitened=False``."""
        if self.spec.whitening is None:
            return raw
        x = torch.from_numpy(raw).to(self.spec.whitening.mean.device)
        return self.spec.finish(x).float().cpu().numpy()

    def embed_tokens(
        self, photos: "Photo | Catalog | Iterable[Photo]", *, batch_size: int = 32
    ) -> tuple[Float[np.ndarray, "N T D"], tuple[int, int]]:
        """Embed every cell of the last feature map.

        Returns:
            float32 [N T D], unit vectors, row-major, and the grid's rows and columns.

        Raises:
            PhotoError: Naming the first photo that cannot be read.
        """
        chunks: list[npt.NDArray[np.float32]] = []
        shape = (0, 0)
        spec = self.spec.to(self.device)
        numbered = enumerate(sources(photos))
        while batch := list(islice(numbered, batch_size)):
            looks = [look_of(item, self._lens) for item in batch]
            for look in looks:
                if look.image is None and look.problem is not None:
                    raise look.problem
            images = stack([look.image for look in looks if look.image is not None])
            with torch.inference_mode():
                features = spec.features(images.to(self.device))
            tokens = torch.nn.functional.normalize(features.tokens.float(), dim=2)
            chunks.append(tokens.cpu().numpy())
            shape = features.shape
        empty = np.zeros((0, 0, self.spec.backbone.token_dim), np.float32)
        return (np.concatenate(chunks) if chunks else empty), shape

    def embed_file(self, path: str | Path) -> Float[np.ndarray, " D"]:
        """Embed one photo file.

        Raises:
            PhotoError: If it cannot be read.
        """
        return self.embed([Path(path)])[0]


def _tensors(spec: EncoderSpec) -> bytes:
    state = {key: value.detach().cpu().contiguous() for key, value in spec.state_dict().items()}
    return to_safetensors(state, {"format": FORMAT})


def _identity(spec: EncoderSpec, digest: str) -> str:
    described = spec.describe()
    described.pop("provenance", None)
    text = json.dumps([described, digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_target(target: Path, layout: Layout) -> None:
    if target.is_dir():
        names = {entry.name for entry in target.iterdir()}
        # A config.json may be anyone's: all three files make it an encoder's.
        ours = _CARD in names if layout == PLAIN else {*layout, _README} >= names
        if names and not ours:
            raise OutputError(
                f"{target} holds other files ({', '.join(sorted(names)[:3])}); choose a new or empty "
                "folder for the encoder."
            )
    elif target.exists():
        raise OutputError(f"{target} is a file; choose a folder for the encoder.")


def _swap(aside: Path, target: Path) -> None:
    """Put a finished folder in place; a crash in between leaves the old one under another name."""
    storage.sync_folder(aside)
    old = _old(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    aside.rename(target)
    storage.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _find(folder: Path) -> tuple[Path, Layout]:
    for layout in (PLAIN, HUB):
        for place in (folder, folder / "encoder", _old(folder)):
            if (place / layout.card).is_file():
                return place, layout
    if not folder.exists():
        raise ArtifactError(f"there is no encoder at {folder}; give a folder that holds {_CARD}.")
    raise ArtifactError(
        f"{folder} is not an encoder: it has no {_CARD}; give run/encoder or one of run/encoders/."
    )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT or not isinstance(card["spec"], dict):
            raise ValueError(f"format is {card['format']!r}")
        version = int(card["format_version"])
        _ = card["weights_sha256"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged or was not written by fieldmark ({error}); copy the folder again."
        ) from None
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format {version}, this fieldmark {fieldmark.__version__} reads up to "
            f"{FORMAT_VERSION}; install fieldmark {card.get('fieldmark', 'newer')} or later."
        )
    return card


def _ledger(provenance: Provenance, card: dict[str, Any], whitened: bool) -> Ledger:
    # Whitening was fitted on photos too: a start with it is no longer only what it was.
    known = {**card, "role": "whitened"} if whitened and card.get("role") == "start" else card
    return ledger(provenance, known)


def _describe(card: dict[str, Any], licences: Ledger, layout: Layout) -> str:
    spec, told = card["spec"], card["card"]
    provenance = Provenance.parse(spec["provenance"], _CARD)
    post = spec["post"]
    whitening = spec["whitening"]
    load = "from_pretrained" if layout == HUB else "load"
    lines = [
        *([hub.front_matter(card, licences)] if layout == HUB else []),
        "# Image encoder",
        "",
        f"Written by fieldmark {card['fieldmark']}. Load it with:",
        "",
        "```python",
        "from fieldmark import Encoder",
        "",
        f'embeddings = Encoder.{load}("this/folder").embed(["photo.jpg"])',
        "```",
        "",
        "| what | value |",
        "|---|---|",
        f"| network | {spec['backbone']['name']} |",
        *(
            f"| inserted at {place} | {item['kind']} |"
            for place, item in spec.get("insertions", {}).items()
        ),
        f"| embedding | {spec['dim']} numbers, length 1, float32 |",
        f"| input | {spec['size']} × {spec['size']} px, centre crop {post['crop']} |",
        f"| pooling | {post['pooling']}{', mirrored image averaged in' if post['flip'] else ''} |",
        f"| whitening | {post['whitening'] + ', fitted without labels' if whitening else 'none'} |",
        f"| starting weights | {provenance.sentence()} |",
        f"| source of the weights | {provenance.source} |",
        f"| identity | {card['identity']} |",
    ]
    for key in ("role", "recipe", "photos", "verdict"):
        value = told.get(key)
        if isinstance(value, (str, int, float)):
            lines.append(f"| {key} | {value} |")
    metrics = told.get("metrics")
    if isinstance(metrics, dict) and metrics:
        lines += ["", "## Measured", "", "| measure | value |", "|---|---|"]
        lines += [
            f"| {key} | {value} |" for key, value in metrics.items() if not isinstance(value, dict)
        ]
    lines += ["", "## Licences", "", "| of | licence, or what is known |", "|---|---|"]
    lines += [f"| {what} | {terms} |" for what, terms in licences.rows()]
    lines += ["", f"Settings in full are in {layout.card}."]
    return "\n".join(lines) + "\n"
