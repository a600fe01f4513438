"""Settings of training, for every method alike."""

from typing import Literal

from pydantic import Field

from fieldmark.config import Config


class GuardConfig(Config):
    """When a run that goes wrong is stopped."""

    collapse: bool = True
    """Stop when features no longer differ between photos."""
    least_spread: float = Field(default=0.05, ge=0)
    """Collapse: feature spread below this, and below a tenth of the start's (spread is 1 when
    features fill the sphere evenly, 0 when all photos look the same)."""
    least_rank: float = Field(default=2.0, ge=0)
    """Collapse: effective rank below this while the start's was twice as large."""
    divergence: float = Field(default=10.0, gt=1)
    """Divergence: smoothed loss above this many times its lowest value (at least 1 nat)."""
    patience_steps: int = Field(default=50, ge=1)
    """Steps that the loss is smoothed over, and that pass before divergence is judged."""


class TrainConfig(Config):
    """Optimiser, schedule, precision, checkpoints, log."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the photos."""
    batch_size: int = Field(default=128, ge=2)
    """Photos per optimiser step, over all processes and accumulated micro-batches."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per optimiser step; saves memory."""
    allow_coupled_accumulation: bool = False
    """Accumulate even for a method whose loss contrasts the photos of a batch with each other; it
    then sees micro-batches of batch_size / accumulate photos, which is not the same loss."""
    optimizer: Literal["sgd", "adamw", "adam", "lars"] = "sgd"
    """SGD with momentum, AdamW, Adam, or LARS."""
    lr: float = Field(default=0.03, gt=0)
    """Learning rate of the steepest part of the schedule, before lr_scaling."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """Multiply lr by batch_size / 256 (linear), by its square root, or not at all."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD and LARS."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's and Adam's averages."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay."""
    decay_bias_and_norm: bool = False
    """Decay biases and normalisation parameters too, as MoCo's released code does."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the learning rate falls, as a function of the share of the run that is done."""
    final_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Cosine: learning rate at the end, as a share of lr."""
    milestones: tuple[float, ...] = (120.0, 160.0)
    """Step: epochs at which the learning rate falls."""
    step_factor: float = Field(default=0.1, gt=0, le=1)
    """Step: what it is multiplied by."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs in which the learning rate rises from 0."""
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest norm of the gradient; 0: not clipped."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the networks; auto: on a CPU whichever was measured faster for this network, on
    a GPU bf16 where it has it, else fp16."""
    channels_last: bool = True
    """Keep images with their channels side by side, which convolutions like."""
    compile: bool = False
    """Translate the method with torch.compile; takes minutes at the start."""
    seed: int = Field(default=0, ge=0)
    """Seed of order, views, heads and whatever the method draws."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Time between two checkpoints; 0: every step. One is also written at the end, and where an
    epoch ends and at least a third of this time has passed."""
    log_every: int = Field(default=1, ge=1)
    """Steps between two lines of the log."""
    tensorboard: bool = True
    """Also write a TensorBoard log, where it is installed."""
    wandb: str = ""
    """Also log to this Weights & Biases project; needs the extra 'wandb'."""
    guard: GuardConfig = GuardConfig()
    """When to stop a run that goes wrong."""
