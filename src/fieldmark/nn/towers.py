"""A small text-image network of our own: convolutions for images, a bag of words for texts.

It is no match for a published one. It exists because a teacher that truly tells relevant from
irrelevant can be trained for drawn pictures in minutes (benchmarks/aviary_teacher.py), which is
what a test of PP-SSL needs where no published teacher can be had.
"""

import json
import math
import re
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from fieldmark import storage
from fieldmark.backbones.weights import read_tensors
from fieldmark.config import Config
from fieldmark.errors import InputError, WeightsError

_CARD, _TENSORS = "teacher.json", "teacher.safetensors"
_FORMAT = "fieldmark-text-teacher"
_GREATEST_SCALE = 100.0


class TowersConfig(Config):
    """Size of both towers and the words that are known."""

    words: tuple[str, ...]
    """Words that the text tower knows, lower case; others are passed over."""
    size: int = Field(default=64, ge=16, le=512)
    """Input side in pixels."""
    dim: int = Field(default=64, ge=2)
    """Length of an embedding."""
    width: int = Field(default=32, ge=4)
    """Channels of the first stage; each of four stages doubles them, up to eight times as many."""

    @field_validator("words")
    @classmethod
    def _plain_words(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError("at least one word is needed and none may be there twice")
        return values


def split_words(text: str) -> list[str]:
    """Words of a text in lower case, in order; punctuation is dropped.

    Example:
        >>> split_words("A bird, flying.")
        ['a', 'bird', 'flying']
    """
    return re.findall(r"[^\W\d_]+", text.lower())


class Towers(nn.Module):
    """Image tower, text tower and a learnt scale, trained like CLIP.

    Args:
        config: Sizes and words.

    Source:
        Radford et al. 2021, arXiv:2103.00020, Figure 3, for the loss; both towers are ours.
    """

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.config = config
        self._place = {word: i for i, word in enumerate(config.words)}
        widths = [config.width * factor for factor in (1, 2, 4, 8)]
        stages: list[nn.Module] = []
        for before, after in zip([3, *widths], widths):
            # Group-norm: what an image means must not depend on the others of its batch.
            stages += [
                nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(4, after), nn.GELU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.GroupNorm(4, after), nn.GELU(),
            ]  # fmt: skip
        self.image = nn.Sequential(*stages)
        self.image_out = nn.Linear(widths[-1], config.dim)
        self.words = nn.EmbeddingBag(len(config.words), 2 * config.dim, mode="mean")
        self.text_out = nn.Sequential(
            nn.Linear(2 * config.dim, 2 * config.dim),
            nn.GELU(),
            nn.Linear(2 * config.dim, config.dim),
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with, at most 100."""
        return self.logit_scale.exp().clamp_max(_GREATEST_SCALE)

    def encode_image(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors of normalised images."""
        return functional.normalize(self.image_out(self.image(images).mean((2, 3))), dim=1)

    def encode_text(self, texts: list[str]) -> Float[Tensor, "T D"]:
        """Unit vectors of texts.

        Raises:
            InputError: If no word of a text is known.
        """
        known = [[self._place[w] for w in split_words(t) if w in self._place] for t in texts]
        for text, words in zip(texts, known):
            if not words:
                raise InputError(
                    f"this text teacher knows no word of the text '{text}'; it knows "
                    f"{len(self._place)} words such as {', '.join(self.config.words[:8])}. Use "
                    "some of them, or another teacher."
                )
        device = self.logit_scale.device
        flat = torch.tensor([word for words in known for word in words], device=device)
        starts = torch.tensor([0, *(len(words) for words in known[:-1])], device=device).cumsum(0)
        return functional.normalize(self.text_out(self.words(flat, starts)), dim=1)

    def save(self, folder: Path) -> None:
        """Write ``teacher.safetensors`` and ``teacher.json``.

        Raises:
            OutputError: If the folder cannot be written.
            StorageError: If the disk is full.
        """
        storage.make_folder(folder)
        tensors = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        storage.write_bytes(folder / _TENSORS, save(tensors))
        storage.write_json(folder / _CARD, {"format": _FORMAT, "config": self.config.dump()})

    @classmethod
    def load(cls, folder: Path) -> "Towers":
        """Read what :meth:`save` wrote.

        Raises:
            WeightsError: If the folder holds no such teacher, or a damaged one.
        """
        try:
            card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
            if card["format"] != _FORMAT:
                raise KeyError("format")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{folder} holds no text teacher of fieldmark ({_CARD}: {error}); a folder with "
                f"{_CARD} and {_TENSORS} is needed, as benchmarks/aviary_teacher.py writes it."
            ) from None
        towers = cls(TowersConfig.parse(card.get("config", {}), str(folder / _CARD)))
        tensors = read_tensors(folder / _TENSORS)
        try:
            towers.load_state_dict(tensors)
        except RuntimeError as error:
            raise WeightsError(
                f"{folder / _TENSORS} does not fit {_CARD} beside it ({' '.join(str(error).split())[:200]}); copy "
                "both files again."
            ) from None
        return towers
