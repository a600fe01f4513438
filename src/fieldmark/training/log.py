"""What a run leaves to read: JSON lines, and TensorBoard and Weights & Biases where wanted.

``metrics.jsonl`` holds only what follows from settings and photos, so that two runs, or a run that
was killed and continued, give the same bytes. Wall-clock times are in ``timing.jsonl``.
"""

import contextlib
import importlib.util
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fieldmark import storage
from fieldmark.errors import ConfigError, MissingExtraError
from fieldmark.training.config import TrainConfig

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


_log = logging.getLogger("fieldmark")


class RunPlan(NamedTuple):
    """What is about to happen."""

    step: int
    """Optimiser steps already done."""
    total: int
    """Optimiser steps of the whole run."""
    steps_per_epoch: int
    epochs: int
    batch_size: int
    precision: str
    precision_seconds: dict[str, float]
    """Seconds per step of each arithmetic, where it was measured just now."""


class StepReport(NamedTuple):
    """One optimiser step."""

    step: int
    total: int
    epoch: float
    values: dict[str, float]
    """Loss, its parts, learning rate, norm of the gradient."""
    images_per_second: float
    """Photos per second, smoothed; 0 while unknown."""
    eta_seconds: float
    """Time left at that rate."""


class Observer:
    """Told what happens; every method does nothing until overridden. Only the first process's is."""

    def begin(self, plan: RunPlan) -> None:
        """Training begins or goes on."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """So many of all photos are done in what the method does before the next step."""

    def step(self, report: StepReport) -> None:
        """A step was made."""

    def health(self, epoch: float, measures: dict[str, float]) -> None:
        """Health was looked at; see ``fieldmark.training.health.MEASURES``."""

    def saved(self, path: Path) -> None:
        """A checkpoint is durable."""

    def note(self, text: str) -> None:
        """Something the user should know, as one or two sentences.

        Goes to the log unless somebody shows it.
        """
        _log.warning(text)


class MetricsLog:
    """Appends to the run's logs.

    Args:
        run: Run folder.
        size: Bytes of ``metrics.jsonl`` that belong to the checkpoint that is continued; what comes
            after was written by steps that will be made again, and is cut off.
        step: Steps done.
        config: Says which further logs to write.
        active: Whether to write at all; only the first process does.
    """

    def __init__(
        self, run: Path, size: int, step: int, config: TrainConfig, *, active: bool = True
    ) -> None:
        self._file: BinaryIO | None = None
        self._timing: BinaryIO | None = None
        self._board: Any = None
        self._wandb: Any = None
        self.cut_short = False
        if not active:
            return
        if config.wandb:
            self._wandb = _start_wandb(run, config.wandb)
        with storage.storage_errors(run / METRICS):
            self._file = (run / METRICS).open("ab")
            self.cut_short = self._file.tell() < size
            self._file.truncate(min(size, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
            self._timing = (run / TIMING).open("ab")
        if config.tensorboard and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    @property
    def size(self) -> int:
        """Bytes of ``metrics.jsonl``."""
        return self._file.tell() if self._file else 0

    def write(self, step: int, epoch: float, values: dict[str, Any], kind: str = "train") -> None:
        """Add one line of numbers."""
        if self._file is None:
            return
        line = json.dumps({"kind": kind, "step": step, "epoch": round(epoch, 6), **values})
        with storage.storage_errors(Path(self._file.name)):
            self._file.write(line.encode() + b"\n")
            # Readable at once, and not lost with the process; durable at the next checkpoint.
            self._file.flush()
        for name, value in values.items():
            if self._board is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{name}": v for name, v in values.items()}, step=step)

    def time(self, values: dict[str, Any]) -> None:
        """Add one line of wall-clock times."""
        if self._timing is not None:
            with storage.storage_errors(Path(self._timing.name)):
                self._timing.write(json.dumps(values).encode() + b"\n")
                self._timing.flush()

    def sync(self) -> None:
        """Make what was written durable; before each checkpoint that refers to it."""
        if self._file is not None:
            with storage.storage_errors(Path(self._file.name)):
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Finish all logs."""
        with contextlib.suppress(OSError):
            self.sync()
        for file in (self._file, self._timing):
            if file is not None:
                file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(run: Path, project: str) -> Any:
    """Begin, or go on with, this run's page at Weights & Biases."""
    if not importlib.util.find_spec("wandb"):
        raise MissingExtraError("wandb", "wandb", "to log to Weights & Biases")
    import wandb

    # Folders of different runs may have the same name; the page must be this run's own.
    kept = run / "wandb-id.txt"
    if not kept.is_file():
        storage.write_text(kept, secrets.token_hex(4))
    try:
        return wandb.init(
            project=project,
            name=run.resolve().name,
            dir=str(run),
            id=kept.read_text(encoding="utf-8").strip(),
            resume="allow",
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"train.wandb = {project!r}, but Weights & Biases cannot be started: {str(error).rstrip('.')}. Run 'wandb "
            "login', or set WANDB_MODE=offline to keep the log on this machine, or leave train.wandb out."
        ) from None


def read_metrics(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, of one kind (``train``, ``health``) or all.

    A last line that a kill left unfinished is left out.
    """
    path = run / METRICS
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if kind is None or line.get("kind") == kind:
                lines.append(line)
    return lines
