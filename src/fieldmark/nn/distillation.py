"""AIS of PP-SSL: the feature learns to tell relevant from irrelevant as a text-image teacher does.

Li et al. 2024, arXiv:2412.00134, "Auxiliary Image Semantics". Attaches to any method that has a
feature per image; nothing of it is needed for inference.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fieldmark import config as settings
from fieldmark import shipped
from fieldmark.config import Config
from fieldmark.errors import ConfigError
from fieldmark.nn.bank import PhotoBank
from fieldmark.nn.frozen import FrozenTeacher, TeacherNorm, TextImageTeacher
from fieldmark.nn.losses import normalize
from fieldmark.nn.places import HOW_TO_GET, without_folder
from fieldmark.nn.text_teacher import load_teacher
from fieldmark.nn.texts import MOST_TEXTS, Kind, text_bank


class TextConfig(Config):
    """Settings of AIS."""

    ais: bool | None = None
    """Whether a text-image teacher's judgement is learnt; None: when a teacher is named."""
    teacher: str | None = None
    """Text-image teacher, such as transformers:FOLDER, open_clip:FOLDER or fieldmark:FOLDER."""
    teacher_norm: TeacherNorm = "clip"
    """Statistics that normalise the teacher's input: its own (clip), or imagenet as released."""
    teacher_views: Literal["crop", "photo"] = "crop"
    """Whether the teacher sees each crop, as in the paper, or each photo's middle square, once."""
    texts: str | None = None
    """Bank of texts: one that is shipped, such as birds, or the path of a .toml file."""
    text_kind: Kind = "fine"
    """Descriptions (fine) or bare names (coarse)."""
    text_count: int = Field(default=8, ge=1, le=MOST_TEXTS)
    """Texts taken from the bank, the relevant one first; 8 in the paper."""
    kd_scale: Annotated[float, Field(gt=0)] | Literal["teacher"] = 100.0
    """What cosines are multiplied with to be logits, on both sides; "teacher": its own."""
    ais_weight: float = Field(default=1.2, ge=0)
    """Weight of the divergence, which is a mean over photos and texts: with 8 texts 1.2 is 0.15
    of the sum over texts."""

    @model_validator(mode="after")
    def _complete(self) -> "TextConfig":
        if self.ais and self.teacher is None:
            raise ConfigError(
                "method.ais = true needs a text-image teacher and method.teacher names none. "
                f"{HOW_TO_GET} Without one leave method.ais out."
            )
        banks = shipped.texts()
        if self.distils and self.texts is None:
            raise ConfigError(
                "method.texts is required with a text-image teacher; name a bank of texts "
                f"({', '.join(banks)}) or the path of a .toml file of your own."
            )
        if self.texts is not None and self.texts not in banks and "." not in self.texts:
            raise ConfigError(settings.suggest(self.texts, banks, "bank of texts (method.texts)"))
        return self

    @property
    def distils(self) -> bool:
        """Whether AIS is on."""
        return self.teacher is not None and self.ais is not False

    def words(self) -> list[str]:
        """The texts that are asked for, the relevant one first.

        Raises:
            ConfigError: If there is no such bank, or it holds fewer.
        """
        return text_bank(self.texts or "").select(self.text_count, self.text_kind)

    @property
    def extra_data(self) -> str:
        """The teacher, which was trained on other photos and their captions, and its texts."""
        if not self.distils:
            return "none"
        bank, teacher = without_folder(self.texts or ""), without_folder(self.teacher or "")
        return f"teacher {teacher}, {self.text_count} texts of {bank}"

    @property
    def what_takes_part(self) -> str:
        """What a run with AIS on rests on beyond its photos and start; empty when it is off."""
        if not self.distils:
            return ""
        return (
            f"AIS is on: the text-image teacher '{without_folder(self.teacher or '')}' takes part with "
            f"{self.text_count} texts of '{without_folder(self.texts or '')}'. It was trained on other "
            "photos and their captions (extra data); no text names a class of these photos."
        )

    @property
    def why_off(self) -> str:
        """What the user should know when AIS is off; empty when it is on."""
        if self.distils:
            return ""
        if self.ais is False:
            return "AIS is off (method.ais = false): no text-image teacher takes part."
        return (
            "AIS IS OFF: PP-SSL trains without its text-image teacher, because method.teacher "
            f"names none. {HOW_TO_GET} Choose texts with method.texts "
            f"({', '.join(shipped.texts())}, or a file of your own)."
        )


def load_teacher_of(config: TextConfig) -> FrozenTeacher:
    """The text-image teacher that some settings name.

    Raises:
        ConfigError: If they name none, or one of no known kind.
        WeightsError: If it is not there or cannot be used.
    """
    return load_teacher(config.teacher or "", teacher_norm=config.teacher_norm)


class TextDistillation(nn.Module):
    """Compares what the student and a frozen teacher say an image looks like.

    Args:
        config: Settings.
        teacher: Text-image teacher; none of its weights is part of this module.
        dim: Length of the student's feature.
    """

    texts: Float[Tensor, "T E"]

    def __init__(self, config: TextConfig, teacher: TextImageTeacher, dim: int) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher
        self.scale = teacher.scale if config.kd_scale == "teacher" else config.kd_scale
        self.project = nn.Linear(dim, teacher.dim)
        self.words = config.words()
        # Not state: follows from the settings, as the teacher does.
        self.register_buffer("texts", teacher.encode_texts(self.words), persistent=False)
        self.bank = PhotoBank(teacher.dim)

    def forward(
        self,
        pooled: Float[Tensor, "B D"],
        images: Float[Tensor, "B 3 H W"],
        rows: Int[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """How far the student's judgement is from the teacher's (Eq. 3 and 4).

        Args:
            pooled: Attention-weighted features, with gradient.
            images: What they are of, in [0, 1].
            rows: Catalog rows of the photos.
        """
        told = self.told(images, rows)
        # A cosine in half precision, times 100, would be off by half a unit.
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.to(self.project.weight.dtype)
            # The feature is brought to length 1 before and after the projection, as released.
            student = normalize(self.project(normalize(pooled)))
            texts = self.texts.to(student)
            judged = (self.scale * side @ texts.T for side in (told.to(student), student))
            return text_divergence(*judged)

    @torch.no_grad()
    def told(
        self, images: Float[Tensor, "B 3 H W"], rows: Int[Tensor, " B"]
    ) -> Float[Tensor, "B E"]:
        """The teacher's unit vectors of the crops, or of their photos once they are remembered."""
        # Outside a run, as when the loop times one step, the crops are all there is.
        if self.config.teacher_views == "crop" or not len(self.bank):
            return self.teacher.encode_images(images.detach())
        return self.bank.of(rows)

    @torch.no_grad()
    def remember(self, rows: Int[Tensor, " N"], embeddings: Float[Tensor, "N E"]) -> None:
        """Keep the teacher's view of each photo, by catalog row; saved with the run."""
        self.bank.fill(rows, embeddings)


def text_divergence(
    teacher: Float[Tensor, "B T"], student: Float[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """``KL(softmax(teacher) || softmax(student))``, averaged over images *and* texts.

    Args:
        teacher: Logits, constant.
        student: Logits, with gradient.

    Returns:
        Nats per image and text; times the number of texts it is the mean over images.

    Source:
        PP-SSL, Eq. 4 with the reduction of the released code; there is no factor of squared
        temperature.

    Example:
        >>> same = torch.tensor([[1.0, 0.0]])
        >>> text_divergence(same, same).item()
        0.0
    """
    log_p = functional.log_softmax(teacher, dim=1)
    log_q = functional.log_softmax(student, dim=1)
    return (log_p.exp() * (log_p - log_q)).mean()
