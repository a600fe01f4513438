"""Text-image teachers by name; see :mod:`fieldmark.nn.frozen` for how they are held.

PP-SSL asks a frozen one which of a few texts a crop looks like. Training needs it, inference never
does.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmark.errors import ConfigError
from fieldmark.nn.clip import OpenClipTeacher, TransformersTeacher
from fieldmark.nn.frozen import FrozenTeacher, TeacherNorm, TextImageTeacher
from fieldmark.nn.places import HOW_TO_GET, OFFLINE_VARIABLE, find
from fieldmark.nn.towers import Towers

__all__ = [
    "FORMS",
    "HOW_TO_GET",
    "OFFLINE_VARIABLE",
    "FrozenTeacher",
    "OpenClipTeacher",
    "SmallTeacher",
    "TeacherNorm",
    "TextImageTeacher",
    "TransformersTeacher",
    "embed_photos",
    "load_teacher",
]

FORMS = (
    "'open_clip:MODEL:FILE.safetensors', 'open_clip:MODEL:TAG', 'open_clip:FOLDER', "
    "'transformers:FOLDER', 'transformers:HUB_NAME' or 'fieldmark:FOLDER'"
)


class SmallTeacher(FrozenTeacher):
    """A small teacher of our own; see :mod:`fieldmark.nn.towers`.

    Args:
        towers: Trained with images normalised by ``CLIP``'s statistics.
        teacher_norm: See :class:`FrozenTeacher`.
    """

    def __init__(self, towers: Towers, *, teacher_norm: TeacherNorm = "clip") -> None:
        super().__init__(
            towers,
            size=towers.config.size,
            scale=float(towers.scale.detach()),
            teacher_norm=teacher_norm,
        )
        self.dim = towers.config.dim

    def _embed_images(self, images: Tensor) -> Tensor:
        return self._network.encode_image(images)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        return self._network.encode_text(texts)

    @classmethod
    def load(cls, place: str, *, teacher_norm: TeacherNorm = "clip") -> "SmallTeacher":
        """Read a folder that :meth:`fieldmark.nn.towers.Towers.save` wrote.

        Raises:
            WeightsError: If there is none.
        """
        return cls(Towers.load(find(place) or Path(place)), teacher_norm=teacher_norm)


_KINDS: dict[str, type[SmallTeacher | OpenClipTeacher | TransformersTeacher]] = {
    "fieldmark": SmallTeacher,
    "open_clip": OpenClipTeacher,
    "transformers": TransformersTeacher,
}


def load_teacher(name: str, *, teacher_norm: TeacherNorm = "clip") -> FrozenTeacher:
    """Load a text-image teacher by its name.

    Args:
        name: ``open_clip:MODEL:FILE.safetensors``, ``open_clip:MODEL:TAG``, ``open_clip:FOLDER``,
            ``transformers:FOLDER``, ``transformers:HUB_NAME`` or ``fieldmark:FOLDER``. Folders and
            files are looked for where they say, then in ``FIELDMARK_WEIGHTS_DIR``. A tag or a
            name on the hub is taken from the hub's local cache, or downloaded, unless
            ``FIELDMARK_OFFLINE`` or ``HF_HUB_OFFLINE`` is set.
        teacher_norm: ``clip``: images are normalised as the teacher was trained. ``imagenet``:
            with ImageNet's statistics, as PP-SSL's released code does.

    Raises:
        ConfigError: If the name has none of these forms.
        MissingExtraError: If the package is not installed.
        WeightsError: If the teacher is not there or cannot be used.
    """
    kind, colon, place = name.partition(":")
    if kind not in _KINDS or not colon or not place:
        raise ConfigError(
            f"a text teacher is named {FORMS}, got '{name}' (method.teacher). {HOW_TO_GET}"
        )
    return _KINDS[kind].load(place, teacher_norm=teacher_norm)


def embed_photos(
    teacher: TextImageTeacher, batches: Iterable[Float[Tensor, "_ 3 _ _"]]
) -> Float[Tensor, "N D"]:
    """Unit vectors of all photos of some batches, on the CPU, so that a method can keep them.

    Args:
        teacher: Any text-image teacher.
        batches: Images in [0, 1]; sizes may differ between batches.
    """
    parts = [teacher.encode_images(images).cpu() for images in batches]
    return torch.cat(parts) if parts else torch.empty(0, teacher.dim)
