"""Fit the post-processing that needs no labels, alike for the start and for the trained encoder."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmark import rng
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import ViewMaker
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import fit_instance_lda, fit_whitening

# Instance LDA compares looks at one photo: crops as training would take them, colours untouched
# but for light, so that what is suppressed is framing and exposure.
LOOKS = ViewSpec(
    count=4,
    size=8,
    scale=(0.3, 1.0),
    saturation=0.2,
    hue=0.0,
    gray=0.0,
    blur=0.3,
    blur_sigma=(0.1, 1.0),
)
MOST_PHOTOS = 4_000
"""Photos that PCA is fitted on, at most; more change nothing that can be measured."""
MOST_LOOKED_AT = 1_500
"""Photos that instance LDA takes four looks at, at most; with 1,000 and 3,000 birds200 had the same mAP."""
_PHOTOS_PER_DIRECTION = 2
# Fewer photos span too few directions to keep only theirs, yet their mean and how looks at one photo
# differ are known well enough: on halves of train photos (start, rank-1 / mAP) 60 photos bring cub50
# from 45.1 / 27.1 to 48.5 / 29.2 and cars196 from 13.0 / 5.3 to 14.9 / 6.4, with more shrinkage than
# many photos want (benchmarks/few_photos.py).
_LEAST_FITTED_ON = 50
_FEW_SHRINKAGE = 0.5


def affordable(post: PostConfig, photos: int) -> PostConfig:
    """The same without whitening when there are too few photos to fit it on.

    PCA finds directions in the span of the photos: from a handful, most of the space would be lost
    to every photo that comes later. Instance LDA keeps all directions then (:func:`fit_post`), and
    is left out below 50 photos only.

    Args:
        post: What the recipe asks for.
        photos: Unlabelled training photos.
    """
    least = _PHOTOS_PER_DIRECTION * (post.whiten_dim or 0)
    if post.whitening == "instance-lda":
        least = min(least, _LEAST_FITTED_ON)
    if post.whiten_dim and photos < least:
        return post.model_copy(update={"whiten_dim": None})
    return post


def fit_post(
    spec: EncoderSpec,
    store: PhotoStore,
    rows: Int[np.ndarray, " N"],
    post: PostConfig,
    *,
    looks: ViewSpec = LOOKS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> EncoderSpec:
    """Attach post-processing to a network, fitting what has to be fitted.

    Args:
        spec: The network; its own post-processing is replaced.
        store: Photo store.
        rows: Unlabelled training photos.
        post: What to attach.
        looks: The looks that instance LDA compares; their size is the network's.
        seed: Chooses photos and looks.
        device: Where to compute.

    Returns:
        An encoder on the same network (shared, not copied). Instance LDA keeps all directions where
        there are fewer than two photos for each that was asked for.
    """
    bare = spec.with_post(post)
    if not post.whiten_dim:
        return bare
    order = np.argsort(rng.mix("whitening", seed, rows), kind="stable")
    most = MOST_PHOTOS if post.whitening == "pca" else MOST_LOOKED_AT
    chosen = np.sort(rows[order[:most]])
    encoder = Encoder(bare, device=device)
    if post.whitening == "pca":
        embeddings = torch.from_numpy(encoder.embed_store(store, chosen))
        return spec.with_post(post, fit_whitening(embeddings, post.whiten_dim, post.whiten_power))
    seen = take_looks(encoder, store, chosen, looks, seed=rng.seed_of("whitening", "views", seed))
    if len(rows) >= _PHOTOS_PER_DIRECTION * post.whiten_dim:
        return spec.with_post(post, fit_instance_lda(seen, post.whiten_dim, post.whiten_power))
    whitening = fit_instance_lda(seen, None, post.whiten_power, _FEW_SHRINKAGE)
    kept = whitening.projection.shape[1]
    return spec.with_post(post.model_copy(update={"whiten_dim": kept}), whitening)


def take_looks(
    encoder: Encoder,
    store: PhotoStore,
    rows: Int[np.ndarray, " N"],
    looks: ViewSpec = LOOKS,
    *,
    seed: int,
) -> Float[Tensor, "N V D"]:
    """Embeddings of several looks at each photo: what instance LDA is fitted on."""
    each = MultiView(specs=(looks.model_copy(update={"size": encoder.size}),))
    # Within the rounding of an 8-bit pixel, and several times as fast.
    maker = ViewMaker(store, each, seed=seed, device=encoder.device, products=torch.bfloat16)
    parts = []
    for begin in range(0, len(rows), 64):
        views = maker.make(rows[begin : begin + 64], 0)
        parts.append(torch.stack([encoder.encode(view.images).cpu() for view in views], 1))
    return torch.cat(parts)


def describe(post: PostConfig) -> str:
    """The post-processing in words."""
    parts = [f"{post.pooling} pooling"]
    if post.stages:
        parts.append(
            f"earlier stages {list(post.stages)} appended with weight {post.stage_weight:g}"
        )
    if post.whiten_dim:
        kind = "PCA" if post.whitening == "pca" else "instance-LDA"
        parts.append(
            f"{kind} whitening to {post.whiten_dim} dimensions, power {post.whiten_power:g}"
        )
    if post.flip:
        parts.append("averaged with the mirrored photo")
    return ", ".join(parts)
