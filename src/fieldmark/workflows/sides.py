"""The encoders of a run on the photos that are evaluated, plain and post-processed, seen once each."""

import copy
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fieldmark import __version__, storage
from fieldmark.encoder import Encoder
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.evaluate import EvalResult, evaluate_encoder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import Whitening
from fieldmark.workflows.photos import Photos
from fieldmark.workflows.post import LOOKS, fit_post
from fieldmark.workflows.recipe import Recipe


class Side(NamedTuple):
    """One encoder, with what it makes of the photos that are evaluated."""

    role: str
    encoder: Encoder
    train: Float[np.ndarray, "N D"]
    """Embeddings of the labelled train photos."""
    test: Float[np.ndarray, "Q D"]
    result: EvalResult | None


class Judged(NamedTuple):
    """What a run's judgement rests on, for whoever measures more of it."""

    data: Photos
    before: Side
    after: Side


Witness = Callable[[Judged], None]


class Sides(NamedTuple):
    """An encoder as it is and with post-processing; the same twice where there is none."""

    plain: Side
    post: Side


def measure(
    role: str,
    spec: EncoderSpec,
    post: PostConfig,
    recipe: Recipe,
    data: Photos,
    device: torch.device,
    *,
    kept: Path | None = None,
) -> Sides:
    """Fit post-processing to an encoder and evaluate it with and without.

    Args:
        role: ``start``, ``student`` or ``teacher``.
        spec: The network; copied, so it may be trained further.
        post: What to attach.
        recipe: Its seed chooses the looks that whitening is fitted on.
        data: Photos.
        device: Where to compute.
        kept: Folder where runs with the same start leave what they found of it for one another.
    """
    bare = copy.deepcopy(spec).with_post(PostConfig(crop=post.crop))
    place = None if kept is None else kept / f"{role}-{_key(bare, post, recipe, data)[:32]}"
    found = None if place is None else _read(place, role, bare, data, device)
    if found is not None:
        return found
    ready = fit_post(
        bare,
        data.store,
        data.train_rows,
        post,
        looks=recipe.protect(LOOKS),
        seed=recipe.train.seed,
        device=device,
    )
    encoder = Encoder(ready, device=device)
    raw = _embed(encoder, data)
    processed = _side(role, encoder, raw, data)
    if ready.post == bare.post:
        found = Sides(processed, processed)
    else:
        plain = Encoder(bare, device=device)
        same = post.sees_as(bare.post)
        found = Sides(_side(role, plain, raw if same else _embed(plain, data), data), processed)
    if place is not None:
        _write(place, found, raw)
    return found


Raw = tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "Q D"]]
"""Of labelled train and test photos, before whitening."""


def _embed(encoder: Encoder, data: Photos) -> Raw:
    split = data.split
    if split is None or not len(split.test_rows):
        nothing = np.zeros((0, encoder.spec.raw_dim), np.float32)
        return nothing, nothing
    train, test = (
        encoder.embed_store(data.store, rows, whitened=False)
        for rows in (split.train_rows, split.test_rows)
    )
    return train, test


def _side(
    role: str, encoder: Encoder, raw: Raw, data: Photos, result: EvalResult | None = None
) -> Side:
    train, test = (encoder.whiten(part) for part in raw)
    split = data.split
    if result is None and split is not None and len(test):
        result = evaluate_encoder(train, split.train_labels, test, split.test_labels, split.classes)
    return Side(role, encoder, train, test, result)


def _key(bare: EncoderSpec, post: PostConfig, recipe: Recipe, data: Photos) -> str:
    """Of everything that the outcome follows from."""
    split = data.split
    described = bare.describe()
    # How the network would be trained makes no other start.
    settings = {key: described["backbone"][key] for key in ("name", "arguments", "mean", "std")}
    told: dict[str, Any] = {
        "fieldmark": __version__,
        "encoder": {**described, "backbone": settings, "provenance": None},
        "post": post.dump(),
        "looks": recipe.protect(LOOKS).dump(),
        "seed": recipe.train.seed if post.whiten_dim else 0,
        "photos": data.catalog.fingerprint(),
        "classes": [] if split is None else split.classes,
    }
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    arrays = [data.store.shapes, data.train_rows, *(() if split is None else split[:4])]
    for rows in arrays:
        total.update(f"{len(rows)} ".encode() + np.asarray(rows, np.int64).tobytes())
    for name, tensor in sorted(bare.state_dict().items()):
        total.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return total.hexdigest()


def _write(place: Path, found: Sides, raw: Raw) -> None:
    """Tensors first: who finds the JSON finds all of it."""
    whitening = found.post.encoder.spec.whitening
    tensors = {"train": raw[0], "test": raw[1]}
    if found.plain is not found.post:
        tensors |= {"plain_train": found.plain.train, "plain_test": found.plain.test}
    if whitening is not None:
        tensors |= {"mean": whitening.mean.numpy(), "projection": whitening.projection.numpy()}
    storage.make_folder(place.parent)
    data = save({name: np.ascontiguousarray(part) for name, part in tensors.items()})
    storage.write_bytes(place.with_suffix(".safetensors"), data)
    told = {
        how: None if side.result is None else side.result.to_dict()
        for how, side in found._asdict().items()
    }
    post = found.post.encoder.post.dump()
    storage.write_json(place.with_suffix(".json"), {"attached": post, **told})


def _read(
    place: Path, role: str, bare: EncoderSpec, data: Photos, device: torch.device
) -> Sides | None:
    """What another run left, if it is there and whole."""
    with suppress(OSError, ValueError, KeyError, SafetensorError, FieldmarkError):
        told = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        tensors = load_file(place.with_suffix(".safetensors"))
        results = {
            how: None if told[how] is None else EvalResult.from_dict(told[how])
            for how in Sides._fields
        }
        whitening = None
        if "mean" in tensors:
            whitening = Whitening(*tensors["projection"].shape)
            whitening.mean.copy_(torch.from_numpy(tensors["mean"]))
            whitening.projection.copy_(torch.from_numpy(tensors["projection"]))
        ready = bare.with_post(PostConfig.parse(told["attached"], place.name), whitening)
        raw = tensors["train"], tensors["test"]
        post = _side(role, Encoder(ready, device=device), raw, data, results["post"])
        if "plain_train" not in tensors:
            return Sides(post, post)
        raw = tensors["plain_train"], tensors["plain_test"]
        plain = _side(role, Encoder(bare, device=device), raw, data, results["plain"])
        return Sides(plain, post)
    return None
