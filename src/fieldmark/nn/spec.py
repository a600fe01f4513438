"""What an encoder computes, described so that it can be rebuilt without training code."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.provenance import Provenance
from fieldmark.config import Config
from fieldmark.errors import InputError
from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.heads import PooledHead
from fieldmark.nn.msam import MSAMBlock, MSAMPyramid, MSAMStem
from fieldmark.nn.readout import Pooling, Readout
from fieldmark.nn.whitening import Whitening, normalise
from fieldmark.types import Features

INSERTED: dict[str, Callable[..., nn.Module]] = {
    module.kind: module
    for module in (MSAMBlock, MSAMPyramid, MSAMStem, MaxOutAttention, PooledHead)
}
"""Modules that a method may put into a backbone (``Backbone.insert``) or between backbone and
readout, where each maps Features to Features, by ``kind``; built from the plain settings that it
reports as ``describe()``."""


class PostConfig(Config):
    """Post-processing that needs no labels, applied to start and trained alike."""

    pooling: Pooling = "network"
    """network (the network's own), gap, gem, cls or cls+gap."""
    gem_power: float = Field(default=3.0, ge=1)
    """Exponent of gem pooling."""
    stages: tuple[int, ...] = ()
    """Earlier feature maps to append, such as [-2, -3]; negative counts from the end."""
    stage_weight: float = Field(default=0.4, gt=0)
    """Length of each appended part relative to the main one."""
    whitening: Literal["pca", "instance-lda"] = "pca"
    """Which covariance is evened out, when whiten_dim is set."""
    whiten_dim: int | None = Field(default=None, ge=0)
    """Directions kept; 0 or nothing: no whitening."""
    whiten_power: float = Field(default=0.25, ge=0, le=1)
    """0 rotates only, 0.5 whitens fully."""
    flip: bool = False
    """Whether the mirrored image is averaged in (twice the work)."""
    crop: float = Field(default=0.875, gt=0, le=1)
    """Share of the short side that the centre crop keeps."""

    def sees_as(self, other: "PostConfig") -> bool:
        """Whether both ask the same of the network, and differ in whitening at most."""
        same = {"whitening": "pca", "whiten_dim": None, "whiten_power": 0.25}
        return self.model_copy(update=same) == other.model_copy(update=same)


class EncoderSpec(nn.Module):
    """Backbone, inserted modules, readout and post-processing.

    Args:
        backbone: Network with its weights; held, not copied.
        post: Post-processing.
        size: Side of the square input in pixels; the backbone's own by default.
        whitening: Fitted map, or None.
        inserted: Modules between backbone and readout, by name in ``INSERTED``.

    Example:
        >>> backbone = Backbone.build(BackboneConfig(name="resnet18", weights="random"), size=64)
        >>> EncoderSpec(backbone)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        backbone: Backbone,
        post: PostConfig | None = None,
        *,
        size: int | None = None,
        whitening: Whitening | None = None,
        inserted: dict[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.post = post or PostConfig()
        self.size = backbone.size if size is None else size
        self.backbone = backbone
        self.inserted = nn.ModuleDict(inserted or {})
        self.readout = Readout(
            self.post.pooling,
            gem_power=self.post.gem_power,
            stages=self.post.stages,
            stage_weight=self.post.stage_weight,
        )
        self.whitening = whitening

    @property
    def crop(self) -> float:
        """Share of the short side that the centre crop keeps."""
        return self.post.crop

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.raw_dim if self.whitening is None else self.whitening.projection.shape[1]

    @property
    def raw_dim(self) -> int:
        """Length before whitening."""
        backbone = self.backbone
        pooled = backbone.dim
        for module in self.inserted.values():
            # A module that replaces the pooled feature says how long its own is.
            pooled = getattr(module, "dim", pooled)
        main = {
            "network": pooled,
            "cls+gap": 2 * backbone.token_dim,
        }.get(self.post.pooling, backbone.token_dim)
        return main + sum(backbone.stage_dims[stage] for stage in self.post.stages)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features after the inserted modules."""
        features = self.backbone(images, stages=self.post.stages)
        for module in self.inserted.values():
            features = module(features)
        return features

    def raw(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors before whitening: what whitening is fitted on."""
        result = normalise(self.readout(self.features(images)))
        if self.post.flip:
            mirrored = normalise(self.readout(self.features(images.flip(3))))
            result = normalise(result + mirrored)
        return result

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """L2-normalised embeddings of images in [0, 1]."""
        return self.finish(self.raw(images))

    def finish(self, raw: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """Whiten, if fitted, and normalise what :meth:`raw` returned."""
        return raw if self.whitening is None else normalise(self.whitening(raw))

    def with_post(self, post: PostConfig, whitening: Whitening | None = None) -> "EncoderSpec":
        """Other post-processing on the same backbone (shared, not copied)."""
        inserted = dict(self.inserted.items())
        return EncoderSpec(
            self.backbone, post, size=self.size, whitening=whitening, inserted=inserted
        )

    def describe(self) -> dict[str, Any]:
        """Everything but the tensors, as plain data for :meth:`rebuild`.

        Paths of this machine are left out.
        """
        config = self.backbone.config.model_copy(update={"weights": None})
        # Named only where there are some: an encoder's identity is a hash of this.
        inside = {
            place: {"kind": module.kind, "settings": module.describe()}  # type: ignore[operator]
            for place, module in self.backbone.insertions.items()
        }
        return {
            **({"insertions": inside} if inside else {}),
            "backbone": config.dump(),
            "provenance": self.backbone.provenance.dump(),
            "inserted": {
                name: module.describe()  # type: ignore[operator]
                for name, module in self.inserted.items()
            },
            "post": self.post.dump(),
            "whitening": None
            if self.whitening is None
            else {"dim_in": self.raw_dim, "dim_out": self.dim},
            "size": self.size,
            "dim": self.dim,
        }

    @classmethod
    def rebuild(cls, data: dict[str, Any]) -> "EncoderSpec":
        """Make the same encoder with weights still to be loaded.

        Raises:
            InputError: If a part is unknown to this version of fieldmark.
        """
        inside = data.get("insertions", {})
        kinds = {*data.get("inserted", {}), *(item["kind"] for item in inside.values())}
        unknown = sorted(kinds - set(INSERTED))
        if unknown:
            raise InputError(
                f"this encoder contains modules unknown to this version: {', '.join(unknown)}; "
                "install the fieldmark version that its card names."
            )
        backbone = Backbone.rebuild(
            BackboneConfig.parse(data["backbone"], "encoder.json"),
            Provenance.parse(data["provenance"], "encoder.json"),
            size=data["size"],
        )
        for place, item in inside.items():
            backbone.insert(place, INSERTED[item["kind"]](**item["settings"]))
        whitening = data.get("whitening")
        return cls(
            backbone,
            PostConfig.parse(data["post"], "encoder.json"),
            size=data["size"],
            whitening=Whitening(**whitening) if whitening else None,
            inserted={name: INSERTED[name](**value) for name, value in data["inserted"].items()},
        )


def freeze(spec: EncoderSpec) -> EncoderSpec:
    """Put an encoder in evaluation mode without gradients, in place."""
    spec.eval()
    return spec.requires_grad_(False)


def same_weights(a: EncoderSpec, b: EncoderSpec) -> bool:
    """Whether two encoders hold the same tensors, bit for bit."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items()
    )
