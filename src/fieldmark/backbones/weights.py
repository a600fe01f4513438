"""Find and read starting weights. Nothing here can execute what a file contains.

Order (docs/design.md): an explicit file; ``FIELDMARK_WEIGHTS_DIR``; the local hub cache; a hub,
when online and allowed; random, with a line that says so loudly.
"""

import json
import logging
import os
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from fieldmark.backbones.provenance import (
    Provenance,
    provenance_from_metadata,
    provenance_from_tag,
    random_provenance,
)
from fieldmark.config import suggest
from fieldmark.errors import WeightsError
from fieldmark.storage import sha256_of

_log = logging.getLogger("fieldmark")

FOLDER_VARIABLE = "FIELDMARK_WEIGHTS_DIR"
DOWNLOAD_VARIABLE = "FIELDMARK_ALLOW_DOWNLOAD"
MAX_HEADER_BYTES = 16 * 2**20
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "student.", "teacher.")
_CONVERT = (
    "convert it once with a tool you trust: "
    'safetensors.torch.save_file(torch.load(FILE, map_location="cpu", weights_only=True), '
    '"weights.safetensors")'
)


class Weights(NamedTuple):
    """Where starting weights are and what is said about them."""

    file: Path | None
    """The safetensors file; None for random weights."""
    metadata: dict[str, str]
    """Free text entries of the file's header."""
    provenance: Provenance


def read_metadata(path: Path) -> dict[str, str]:
    """Read the free text entries of a safetensors header, after checking that the file is whole.

    Understood elsewhere: ``arch`` (timm name), ``pad_type``, ``arguments`` (of timm's constructor,
    a JSON object of plain values), ``mean``, ``std`` (comma-separated, in [0, 1]), ``supervision``,
    ``data``, ``licence``, ``labels_seen``, ``source``.

    Raises:
        WeightsError: If the file is absent, is no safetensors file (HTML, pickle, anything) or is
            cut short.
    """
    header = _header(path)
    entries = header.get("__metadata__", {})
    return {str(key): str(value) for key, value in entries.items()}


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {path}; give a .safetensors file, 'random', 'auto' or 'hub'."
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        # A header of 128 bytes, or of any length that ends in 0x80, begins like a pickle does.
        announced = 2 <= length <= MAX_HEADER_BYTES and start[8:9] == b"{"
        looks_pickled = start[:2] == b"PK" or start[:1] == b"\x80"
        if (looks_pickled and not announced) or path.suffix in {".pkl", ".pickle"}:
            raise WeightsError(
                f"{path} is a pickle (a PyTorch checkpoint), which can run any code when it is "
                f"opened and is never read here; {_CONVERT}."
            )
        if start.lstrip()[:1] == b"<":
            raise WeightsError(
                f"{path} is a web page, not weights: the download returned HTML, often a login or "
                "an error page. Download the .safetensors file itself again."
            )
        if start.startswith(b"version https://git-lfs"):
            raise WeightsError(
                f"{path} is a git-lfs pointer, not weights; fetch the content with 'git lfs pull'."
            )
        if not announced:
            raise WeightsError(
                f"{path} ({size} bytes) is not a safetensors file; weights must be .safetensors. "
                f"If it is a PyTorch checkpoint, {_CONVERT}."
            )
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        detail = "is cut short" if len(raw) < length else "has a damaged header"
        raise WeightsError(f"{path} {detail} ({size} bytes); download or copy it again.") from None
    if size != expected:
        raise WeightsError(
            f"{path} has {size} bytes where its header announces {expected}: it is cut short or "
            "damaged; download or copy it again."
        )
    return header


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file, floats as float32.

    Raises:
        WeightsError: If the file cannot be used or holds NaN or infinity.
    """
    _header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}.") from None
    for key, value in tensors.items():
        if value.is_floating_point():
            tensors[key] = value.float()
            if not torch.isfinite(tensors[key]).all():
                raise WeightsError(
                    f"{path} holds NaN or infinity in '{key}'; these weights are damaged, "
                    "use another file."
                )
    return tensors


def check_name(name: str) -> str:
    """Return a timm network name, refusing unknown ones with the closest.

    Raises:
        WeightsError: If timm has no such network.
    """
    architecture = name.split(".", 1)[0]
    if not is_model(architecture):
        close = suggest(architecture, timm.list_models(), "network").split(" allowed:")[0]
        raise WeightsError(
            f"{close} any timm network can be named, such as mobilenetv2_100, resnet50 or "
            "vit_small_patch16_224."
        )
    return name


def find_weights(name: str | None, weights: str | None, *, seed: int = 0) -> Weights:
    """Find starting weights without reading their tensors.

    Args:
        name: timm network, with or without a weights tag; None to accept what a file names.
        weights: A .safetensors file; ``random``; ``hub`` or ``hub:NAME`` to allow a download;
            ``auto`` or None for the order at the top of this module.
        seed: Seed of random weights.

    Raises:
        WeightsError: If what was asked for does not exist.
    """
    if weights == "random":
        return Weights(None, {}, random_provenance(seed))
    if weights is not None and weights not in ("auto", "hub") and not weights.startswith("hub:"):
        return _from_file(Path(weights).expanduser())
    asked = weights is not None and weights.startswith("hub")
    wanted = weights[4:] if weights is not None and weights.startswith("hub:") else name
    if wanted is None:
        raise WeightsError(
            "neither a network nor a weights file is named; set backbone.name, or give --weights "
            "with a file whose metadata names its network."
        )
    if not asked:
        found = _from_folder(wanted)
        if found is not None:
            return found
    hub = _from_hub(wanted, asked=asked)
    if hub is not None:
        return hub
    _log.warning(
        "NO TRAINED WEIGHTS for '%s': none given, none in %s, none in the local hub cache, and "
        "downloading was not asked for. Starting from RANDOM weights; give --weights FILE, or "
        'weights = "hub" to download.',
        wanted,
        os.environ.get(FOLDER_VARIABLE) or f"{FOLDER_VARIABLE} (not set)",
    )
    return Weights(None, {}, random_provenance(seed))


def _from_file(path: Path) -> Weights:
    metadata = read_metadata(path)
    return Weights(path, metadata, provenance_from_metadata(metadata, path.name, sha256_of(path)))


def _from_folder(name: str) -> Weights | None:
    place = os.environ.get(FOLDER_VARIABLE)
    if not place:
        return None
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise WeightsError(
            f"{FOLDER_VARIABLE} names {folder}, which is not a folder; correct or unset it."
        )
    exact = folder / f"{name}.safetensors"
    if exact.is_file():
        return _from_file(exact)
    if "." in name:
        return None
    matches = sorted(folder.glob(f"{name}.*.safetensors"))
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise WeightsError(
            f"{folder} holds several weights for '{name}': {names}; name one with --weights FILE."
        )
    return _from_file(matches[0]) if matches else None


def _from_hub(name: str, *, asked: bool) -> Weights | None:
    config = (
        get_pretrained_cfg(name, allow_unregistered=False) if is_model(name.split(".")[0]) else None
    )
    repository = getattr(config, "hf_hub_id", None)
    if repository is None and "/" in name:
        repository = name
    if not repository or repository == "timm/":
        if asked:
            raise WeightsError(f"no hub weights are known for '{name}'; give --weights FILE.")
        return None
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, "model.safetensors")
    path = Path(cached) if isinstance(cached, str) else None
    if path is None:
        if not asked and os.environ.get(DOWNLOAD_VARIABLE, "") not in {"1", "true", "yes"}:
            return None
        try:
            path = Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
        except Exception as error:  # the hub client raises from many libraries
            raise WeightsError(
                f"weights '{repository}' could not be downloaded ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:160]}); download model.safetensors elsewhere and give it "
                'with --weights FILE, or use weights = "random".'
            ) from None
    tag = getattr(config, "tag", None) or (name.split(".", 1)[1] if "." in name else "")
    return Weights(
        path,
        read_metadata(path),
        provenance_from_tag(tag, getattr(config, "license", None), repository, sha256_of(path)),
    )


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Load a file into a timm network; the classifier is left out, everything else must fit.

    Args:
        model: Built with ``num_classes=0``.
        path: A safetensors file with timm's parameter names.
        name: The network's name, for error texts.

    Raises:
        WeightsError: Naming the missing, surplus or mis-shaped parameters.
    """
    tensors = _without_prefix(read_tensors(path))
    tensors = _adapt(model, tensors)
    own = model.state_dict()
    classifier = _classifier_names(model)
    surplus = sorted(
        key for key in tensors if key not in own and not key.split(".")[0].startswith(classifier)
    )
    missing = sorted(
        key for key in own if key not in tensors and not key.endswith("num_batches_tracked")
    )
    shapes = [
        f"{key} {tuple(tensors[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if missing or surplus or shapes:
        matching = sum(key in tensors for key in own) - len(shapes)
        parts = [f"{matching} of {len(own)} parameters fit"]
        for title, items in (("missing", missing), ("surplus", surplus), ("shape", shapes)):
            if items:
                more = f" and {len(items) - 3} more" if len(items) > 3 else ""
                parts.append(f"{title}: {', '.join(items[:3])}{more}")
        verdict = (
            "they belong to another network"
            if matching < len(own) / 2
            else "they do not fit exactly"
        )
        raise WeightsError(
            f"the weights in {path.name} are not those of '{name}': {verdict} ({'; '.join(parts)}). "
            "Name the network that they were made for (backbone.name), or give other weights."
        )
    model.load_state_dict({key: tensors.get(key, own[key]) for key in own})


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    return (*(name.split(".")[0] for name in names), "head_dist", "aux", "AuxLogits")


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return _without_prefix({key.removeprefix(prefix): v for key, v in tensors.items()})
    return tensors


def _adapt(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let timm translate published layouts and resample position embeddings to the built size."""
    if set(model.state_dict()) <= set(tensors) and all(
        tensors[key].shape == value.shape for key, value in model.state_dict().items()
    ):
        return tensors
    import sys

    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return tensors
    try:
        adapted = translate(dict(tensors), model)
    except Exception:  # it was written for other files; the plain comparison explains better
        return tensors
    return {key: value for key, value in adapted.items() if isinstance(value, Tensor)}


def parse_statistics(text: str, key: str, path: Path) -> tuple[float, float, float]:
    """Read ``0.5,0.5,0.5`` from a file's metadata.

    Raises:
        WeightsError: If it is not three numbers (all above 0 for ``std``).
    """
    try:
        values = [float(part) for part in re.split(r"[,\s]+", text.strip(" []()")) if part]
    except ValueError:
        values = []
    if len(values) != 3 or (key == "std" and min(values) <= 0):
        raise WeightsError(
            f"the metadata of {path.name} says {key} = {text!r}; three numbers are needed, "
            "such as 0.485,0.456,0.406. Set backbone.mean and backbone.std instead."
        )
    return values[0], values[1], values[2]


def parse_arguments(text: str, path: Path) -> dict[str, bool | int | float | str]:
    """Read ``{"depth": 6}`` from a file's metadata.

    Raises:
        WeightsError: If it is not a JSON object of plain values.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(value, (bool, int, float, str)) for value in found.values()
    ):
        raise WeightsError(
            f"the metadata of {path.name} says arguments = {text!r}; a JSON object of numbers, "
            'words and true or false is needed, such as {"depth": 6}. Set backbone.arguments instead.'
        )
    return found
