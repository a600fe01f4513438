"""Supervised fine-tuning as something that the loop can run: labels are looked up by row."""

from typing import Any

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fieldmark.backbones.normalization import Normalization
from fieldmark.backbones.provenance import Provenance
from fieldmark.config import Config
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.errors import LabelError
from fieldmark.methods.method import Method, Summary
from fieldmark.nn.classifier import ClassHead, Classifier
from fieldmark.nn.spec import EncoderSpec
from fieldmark.training.config import TrainConfig
from fieldmark.types import Batch, LossOutput, Progress

SGD = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4}
"""What SGD wants instead of AdamW's defaults."""


class FinetuneConfig(Config):
    """Settings of supervised fine-tuning."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of each photo's target that is spread over all classes; 0: none."""
    smallest_crop: float = Field(default=0.2, gt=0, le=1)
    """Smallest crop as a share of the photo's area; the largest is the whole photo."""
    jitter: float = Field(default=0.0, ge=0)
    """Brightness, contrast and saturation are multiplied by 1 ± this; 0: colours stay."""
    head_rate: float = Field(default=10.0, gt=0)
    """Learning rate of the linear layer relative to that of the network."""
    normalization: Normalization | None = None
    """Batch-norm while training: frozen, slow or train; by default frozen where the start has
    trained weights (its statistics are worth more than those of some hundred batches) and train
    where it began with random ones."""
    train_from_stage: int = 0
    """First stage of the network that learns; earlier ones are frozen. Negative counts from the
    end. To train the head alone is a linear probe: fieldmark eval."""
    lr_ratios: tuple[float, ...] = ()
    """Learning-rate ratio per stage, input to output; fewer values than stages are spread evenly."""
    train: TrainConfig = TrainConfig(
        epochs=30, batch_size=32, optimizer="adamw", lr=3e-4, weight_decay=0.05, warmup_epochs=1
    )
    """Optimiser, schedule, precision, checkpoints."""

    def for_start(self, provenance: Provenance) -> "FinetuneConfig":
        """These settings, with what depends on the start's weights settled."""
        usual: Normalization = "train" if provenance.how == "random" else "frozen"
        return self.model_copy(update={"normalization": self.normalization or usual})


class SupervisedObjective(Method):
    """Cross-entropy of each photo's class, for an encoder and a head that learn together.

    A batch has no label field by design, so the labels of all rows are held here, saved with the
    state, and looked up by ``batch.rows``.

    Args:
        config: Settings.
        classifier: Trained in place.
        labels: Class of each catalog row; -1 for rows without, which must not be in a batch.

    Raises:
        LabelError: If a label is beyond the head's classes, or no row has one.
    """

    config_type = FinetuneConfig
    summary = Summary(
        idea="the class of each photo, told by its label",
        needs="a label for every photo that trains",
        when="as the reference with full supervision; fieldmark finetune runs it",
        paper="cross-entropy with label smoothing, Szegedy et al. 2016, arXiv:1512.00567",
    )
    config: FinetuneConfig

    def __init__(
        self, config: FinetuneConfig, classifier: Classifier, labels: Int[Tensor, " R"]
    ) -> None:
        # The network is registered once, inside the classifier, so that it is saved once.
        nn.Module.__init__(self)
        largest = int(labels.max()) if len(labels) else -1
        if not 0 <= largest < classifier.classes:
            raise LabelError(
                f"the largest label is {largest}; the head has {classifier.classes} classes, so labels "
                f"run from 0 to {classifier.classes - 1}, -1 stands for none, and one at least is needed."
            )
        self.config = config
        self.classifier = classifier
        self.register_buffer("labels", labels.long())

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """One crop of random size and shape, mirrored half of the time."""
        return MultiView(
            specs=(
                ViewSpec(
                    size=size,
                    scale=(config.smallest_crop, 1.0),
                    jitter_probability=1.0 if config.jitter else 0.0,
                    brightness=config.jitter,
                    contrast=config.jitter,
                    saturation=config.jitter,
                    hue=0.0,
                    gray=0.0,
                    blur=0.0,
                ),
            )
        )

    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """Mean cross-entropy, in nats."""
        (view,) = batch.views
        logits = self.classifier(view.images).float()
        labels = self.labels[batch.rows]  # type: ignore[index]
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        right = (logits.detach().argmax(1) == labels).float().mean()
        return LossOutput(loss, {"accuracy": right})

    def exports(self) -> dict[str, EncoderSpec]:
        """The encoder without its head."""
        return {"student": self.classifier.spec}


def build_classifier(
    spec: EncoderSpec, classes: int, config: FinetuneConfig, *, seed: int
) -> Classifier:
    """Make a copy of an encoder that learns, with a fresh head.

    Post-processing that was fitted (whitening) and the mirrored second pass are left out: the
    head takes their place.

    Args:
        spec: What to start from; not changed.
        classes: Number of classes.
        config: Says what of it learns.
        seed: Of the head's weights.
    """
    config = config.for_start(spec.backbone.provenance)
    described = spec.describe()
    described["backbone"] |= {
        "normalization": config.normalization,
        "train_from_stage": config.train_from_stage,
        "lr_ratios": list(config.lr_ratios),
        "norm_affine_trainable": True,
    }
    described["post"] |= {"whiten_dim": None, "flip": False}
    described["whitening"] = None
    fresh = EncoderSpec.rebuild(described)
    state = {k: v for k, v in spec.state_dict().items() if not k.startswith("whitening.")}
    fresh.load_state_dict(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ClassHead(fresh.raw_dim, classes, lr_ratio=config.head_rate)
    return Classifier(fresh, head)
