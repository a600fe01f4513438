"""Stops a run that goes wrong, says why and what to do, before a good checkpoint is replaced."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from fieldmark.errors import CollapseError, NonFiniteError, TrainingError
from fieldmark.training.config import GuardConfig

_REMEDY_RATE = (
    "Lower the learning rate (--set train.lr=..., a third of it to begin with), add warm-up "
    "(train.warmup_epochs) or clip the gradient (train.clip_norm=1)"
)


def check_finite(
    values: dict[str, float],
    step: int,
    rows: Sequence[int],
    precision: str,
    kept: Callable[[], str],
) -> None:
    """Refuse to make a step with NaN or infinity in loss or gradient.

    Args:
        values: By name: loss, parts of the loss, norm of the gradient.
        step: The step that would have been made, counted from 1.
        rows: Catalog rows of the photos in the batch.
        precision: Arithmetic in use.
        kept: Says what is still good.

    Raises:
        NonFiniteError: With ``step`` and ``rows`` as attributes.
    """
    wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not wrong:
        return
    listed = ", ".join(str(row) for row in rows[:16]) + (", ..." if len(rows) > 16 else "")
    advice = _REMEDY_RATE
    if precision != "fp32":
        advice += f", or rule out {precision} arithmetic with train.precision='fp32'"
    error = NonFiniteError(
        f"training stopped before step {step}: "
        + " and ".join(f"{name} is {value}" for name, value in wrong.items())
        + f" on the photos of rows {listed}; only finite numbers can be trained on. {kept()} {advice}."
    )
    error.step, error.rows = step, tuple(rows)  # type: ignore[attr-defined]
    raise error


class Guard:
    """Watches loss and health. Its state is plain data and part of every checkpoint."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.smooth: float | None = None
        self.lowest = math.inf
        self.seen = 0
        self.start: dict[str, float] | None = None

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        lowest = self.lowest if math.isfinite(self.lowest) else None
        return {"smooth": self.smooth, "lowest": lowest, "seen": self.seen, "start": self.start}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's data."""
        self.smooth, self.seen, self.start = state["smooth"], state["seen"], state["start"]
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]

    def check_loss(self, loss: float, step: int, kept: Callable[[], str]) -> None:
        """Judge one step's loss.

        Raises:
            TrainingError: The smoothed loss rose far above its lowest value. A rise as such is
                healthy: MoCo's loss grows while it learns, because its negatives get harder.
        """
        share = 2.0 / (self.config.patience_steps + 1)
        self.smooth = loss if self.smooth is None else self.smooth + share * (loss - self.smooth)
        self.seen += 1
        if self.seen < self.config.patience_steps:
            return
        self.lowest = min(self.lowest, self.smooth)
        limit = self.config.divergence * max(1.0, self.lowest)
        if self.smooth > limit:
            raise TrainingError(
                f"training diverged: at step {step} the smoothed loss is {self.smooth:.3g}, more "
                f"than {self.config.divergence:g} times its lowest value {self.lowest:.3g} "
                f"(train.guard.divergence). {kept()} {_REMEDY_RATE}."
            )

    def check_health(self, health: dict[str, float], step: int, kept: Callable[[], str]) -> None:
        """Judge one look at the features.

        Raises:
            CollapseError: Features no longer differ between photos.
            NonFiniteError: Features hold NaN or infinity.
        """
        if not all(math.isfinite(value) for value in health.values()):
            raise NonFiniteError(
                f"training stopped after step {step}: features hold NaN or infinity. "
                f"{kept()} {_REMEDY_RATE}."
            )
        if self.start is None:
            self.start = dict(health)
            return
        if not self.config.collapse:
            return
        spread, rank = health["feature_spread"], health["effective_rank"]
        spread0, rank0 = self.start["feature_spread"], self.start["effective_rank"]
        flat = spread < min(self.config.least_spread, spread0 / 10)
        thin = rank < self.config.least_rank and rank0 > 2 * self.config.least_rank
        if flat or thin:
            raise CollapseError(
                f"features collapsed: after step {step} photos look nearly alike to the network "
                f"(feature spread {spread:.4f}, {spread0:.4f} at the start; effective rank "
                f"{rank:.1f}, {rank0:.1f} at the start; view recall {health['view_recall']:.2f}). "
                f"{kept()} Usual causes: a teacher that follows too fast (raise method.momentum "
                "towards 0.999), too high a learning rate, or a batch or queue too small for its "
                f"temperature. {_REMEDY_RATE}; freeze batch-norm (backbone.normalization='frozen')."
            )
