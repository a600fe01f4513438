"""Text-image teachers: what a method needs of one, and how it is held while it never learns.

A teacher may hold ten times the weights of the network that is trained. It is an ``nn.Module``, so
that it follows its method to another device, but it keeps its network outside the module tree:
none of its weights is in ``state_dict()`` (checkpoints and artifacts stay small), ``parameters()``
(no optimiser, average or gradient sees them) or reached by ``train()`` (it stays in evaluation
mode). A resumed run loads the teacher again by its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fieldmark.errors import ConfigError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
TeacherNorm = Literal["clip", "imagenet"]


@runtime_checkable
class TextImageTeacher(Protocol):
    """What a method needs of a text-image network. Nothing in it learns."""

    dim: int
    """Length of an embedding."""
    scale: float
    """What its cosines are multiplied with to be logits: exp(logit_scale)."""

    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors of images in [0, 1]; resizes and normalises for itself."""

    def encode_texts(self, texts: list[str]) -> Float[Tensor, "T D"]:
        """Unit vectors of texts."""


class FrozenTeacher(nn.Module, ABC):
    """Holds a text-image network that never learns; the adapters build on it.

    Args:
        network: Put in evaluation mode, without gradients; see the top of this module for where
            it is kept.
        size: Input side in pixels.
        scale: exp(logit_scale).
        statistics: Mean and deviation per channel that the network was trained with.
        teacher_norm: ``clip``: those statistics. ``imagenet``: ImageNet's, which is what PP-SSL's
            released code feeds to CLIP by accident.
        squash: Make an image square by changing its shape, as SigLIP does, instead of cutting
            its middle out, as CLIP does. The same for square images.
    """

    dim: int
    """Length of an embedding; set by the adapter."""

    def __init__(
        self,
        network: nn.Module,
        *,
        size: int,
        scale: float,
        statistics: Statistics = CLIP,
        teacher_norm: TeacherNorm = "clip",
        squash: bool = False,
    ) -> None:
        super().__init__()
        # Not an attribute that nn.Module would register.
        self.__dict__["network"] = network.eval().requires_grad_(False)
        self.size, self.scale, self.squash = size, scale, squash
        self.mean, self.std = IMAGENET if teacher_norm == "imagenet" else statistics

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        # to(), cuda() and double() come through here and would pass the network by.
        self._network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def _network(self) -> Any:
        return self.__dict__["network"]

    @property
    def _like(self) -> Tensor:
        first: Tensor = next(self._network.parameters())
        return first

    @abstractmethod
    def _embed_images(self, images: Tensor) -> Tensor:
        """Features of prepared images, of any length."""

    @abstractmethod
    def _embed_texts(self, texts: list[str]) -> Tensor:
        """Features of texts, of any length."""

    @torch.no_grad()
    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors, float32, of images in [0, 1] of any size."""
        prepared = prepare(images, self.size, self.mean, self.std, squash=self.squash)
        return functional.normalize(self._embed_images(prepared.to(self._like)).float(), dim=1)

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Float[Tensor, "T D"]:
        """Unit vectors, float32.

        Raises:
            ConfigError: If there is no text.
        """
        if not texts:
            raise ConfigError("a text teacher needs at least one text, got none; give 1 to 16.")
        return functional.normalize(self._embed_texts(texts).float(), dim=1)


def prepare(
    images: Float[Tensor, "B 3 H W"],
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    squash: bool = False,
) -> Float[Tensor, "B 3 size size"]:
    """Bring images to a network's input: bicubic with antialiasing, middle square, normalised.

    Args:
        images: RGB in [0, 1].
        size: Side in pixels.
        mean: Per channel, in [0, 1].
        std: Per channel, > 0.
        squash: Change the shape of an image that is not square, instead of cutting it.
    """
    images = images.float()
    height, width = images.shape[2:]
    if (height, width) != (size, size):
        short = min(height, width)
        target = (size, size) if squash else (size * height // short, size * width // short)
        images = functional.interpolate(images, target, mode="bicubic", antialias=True)
        # Bicubic overshoots at edges; bytes, which the network was trained on, cannot.
        images = images.clamp(0, 1)
        top, left = (target[0] - size) // 2, (target[1] - size) // 2
        images = images[:, :, top : top + size, left : left + size]
    offset = torch.tensor(mean, device=images.device).view(3, 1, 1)
    spread = torch.tensor(std, device=images.device).view(3, 1, 1)
    return (images - offset) / spread
