"""What the start says of photos when it may look long: the yardstick where there are no labels.

One look at the small input is what ships; ten at a larger one, averaged, are better and too slow to
ship. An encoder that ranks neighbours more like those ten looks than the start does has learnt
something; which criterion tells help from harm how often is measured in docs/results.md.
"""

import copy

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark import rng
from fieldmark.data.sampling import ViewSpec
from fieldmark.data.store import PhotoStore
from fieldmark.encoder import Encoder
from fieldmark.nn.diffusion import diffuse
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import normalise
from fieldmark.workflows.post import LOOKS, affordable, fit_post, take_looks

SCALE = 1.75
"""Input of the reference, as a multiple of the start's, where the network was made for as much."""
SHARED_AMONG, SHARE = 5, 0.6
"""Neighbours that the reference is shared among, where mutual, and how much of it."""
FITTED_ON = 1_000
"""Photos that its whitening is fitted on, at most."""
_POST = PostConfig(crop=1.0, whitening="instance-lda", whiten_dim=256, whiten_power=0.25)


def reference_embeddings(
    start: EncoderSpec,
    store: PhotoStore,
    fit_rows: Int[np.ndarray, " N"],
    rows: Int[np.ndarray, " Q"],
    *,
    looks: ViewSpec = LOOKS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "Q D"]:
    """Mean of the start's embeddings of the whole photo and four crops, larger, each mirrored too.

    Nothing is mirrored where the looks are not.

    Args:
        start: The encoder that training started from; its post-processing does not matter.
        store: Photo store.
        fit_rows: Unlabelled photos that whitening (instance LDA) is fitted on; left out when there
            are too few.
        rows: Photos to embed.
        looks: The crops; their size is the larger one.
        seed: Chooses photos and crops.
        device: Where to compute.

    Returns:
        Unit vectors.
    """
    order = np.argsort(rng.mix("reference", seed, fit_rows), kind="stable")
    fit_rows = np.sort(fit_rows[order[:FITTED_ON]])
    large = _enlarged(start)
    post = affordable(_POST, len(fit_rows))
    fitted = fit_post(large, store, fit_rows, post, looks=looks, seed=seed, device=device)
    # The mirrored photo is averaged in before whitening: the fit needs it no more than the crops do.
    post = fitted.post.model_copy(update={"flip": looks.flip > 0})
    encoder = Encoder(fitted.with_post(post, fitted.whitening), device=device)
    whole = torch.from_numpy(encoder.embed_store(store, rows))
    drawn = rng.seed_of("reference", "looks", seed)
    crops = take_looks(encoder, store, rows, looks, seed=drawn).mean(1)
    return normalise(whole + normalise(crops)).numpy()


def _enlarged(start: EncoderSpec) -> EncoderSpec:
    """The same network at a larger input, where it takes one."""
    spec = copy.deepcopy(start).with_post(_POST)
    spec.size = spec.backbone.larger_input(SCALE)
    return spec


def yardstick(reference: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """The same, shared among photos that find each other: their neighbours are more often of a kind.

    As the house recipe shares its targets (docs/results.md tells by how much it is better).
    """
    return diffuse(torch.from_numpy(reference), SHARED_AMONG, SHARE).numpy()
