"""The loop. It knows batches, a loss, an optimiser and checkpoints, and nothing of any method."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from fieldmark import runtime, storage
from fieldmark.backbones.normalization import synchronize_statistics
from fieldmark.errors import ArtifactError, ConfigError
from fieldmark.methods.method import Method
from fieldmark.training import checkpoint, continuity, precision
from fieldmark.training.config import GuardConfig, TrainConfig
from fieldmark.training.guard import Guard, check_finite
from fieldmark.training.health import HealthProbe
from fieldmark.training.interrupt import Wish, interrupted, interrupted_before, listening
from fieldmark.training.lock import hold_run
from fieldmark.training.log import MetricsLog, Observer, RunPlan, StepReport, read_metrics
from fieldmark.training.optim import build_optimizer, learning_rate, set_learning_rate
from fieldmark.training.speed import Speed
from fieldmark.types import Batch, LossOutput, Progress, move_batch

__all__ = ["FitResult", "GuardConfig", "Source", "TrainConfig", "fit", "trial"]

_CHECKPOINTS = "checkpoints"


@runtime_checkable
class Source(Protocol):
    """Batches by step number, as ``fieldmark.data.views.BatchSource`` makes them."""

    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the photos."""

    def batch(
        self, step: int, micro: int = 0, micros: int = 1, rank: int = 0, world: int = 1
    ) -> Batch:
        """One micro-batch of one process."""


class FitResult(NamedTuple):
    """How training ended."""

    step: int
    """Optimiser steps done, over all calls."""
    epochs: float
    resumed_from: int
    """Step at which this call took over; 0 for a fresh run."""
    precision: str
    images_per_second: float
    """Of this call; 0 when there was nothing left to do."""
    seconds: float
    """Wall-clock time of this call."""
    health: list[dict[str, Any]]
    """Every look at the features, from the start, with ``step`` and ``epoch``."""
    notes: list[str]
    """What the user was told."""


def fit(
    method: Method,
    source: Source,
    config: TrainConfig,
    run: Path,
    *,
    observer: Observer | None = None,
    health: HealthProbe | None = None,
    identity: dict[str, Any] | None = None,
    allow_changed: bool = False,
    after_epoch: Callable[[int], None] | None = None,
    device: torch.device | str = "cpu",
) -> FitResult:
    """Train, or go on training where this run stopped.

    Called again with the same arguments after a kill at any moment, it ends with the same weights
    and the same ``metrics.jsonl`` to the bit (CPU, one process, as many threads). Called again
    after it finished, with more epochs, it goes on.

    Args:
        method: Trained in place; ends in the state of the last step.
        source: Makes batches by step number.
        config: Settings.
        run: Run folder; ``checkpoints/``, ``metrics.jsonl`` and ``training.json`` go here.
        observer: Told of every step; the first process's only.
        health: Looks at the features at the start and every so many epochs.
        identity: What else must stay the same for the run to go on, as plain data: photos
            (``{"count": ..., "fingerprint": ...}``), method and backbone settings.
        allow_changed: Go on even though something of it changed.
        after_epoch: Called with the number of epochs done, by the first process.
        device: Where to train.

    Raises:
        ConfigError: Settings that contradict each other or the source.
        OutputError: The folder holds another run, or another process works on it.
        ArtifactError: Checkpoints are there and none is usable.
        NonFiniteError: NaN or infinity, with ``step`` and ``rows``; the step was not made.
        CollapseError: Features no longer differ between photos.
        TrainingError: The loss diverged.
        Interrupted: Stopped by SIGINT or SIGTERM; the state after the last step is saved.
    """
    _check(method, source, config)
    run = storage.make_folder(Path(run))
    with ExitStack() as stack:
        if runtime.rank() == 0:
            stack.enter_context(hold_run(run))
        trainer = _Run(method, source, config, run, torch.device(device))
        trainer.observer = observer if observer and runtime.rank() == 0 else Observer()
        trainer.probe = health
        trainer.after_epoch = after_epoch if runtime.rank() == 0 else None
        return trainer.train(identity or {}, allow_changed)


def _check(method: Method, source: Source, config: TrainConfig) -> None:
    if source.batch_size != config.batch_size:
        raise ConfigError(
            f"the source makes batches of {source.batch_size} photos and train.batch_size is "
            f"{config.batch_size}; they must be equal."
        )
    if source.steps_per_epoch < 1:
        raise ConfigError(
            f"there are fewer photos than one batch takes (train.batch_size = "
            f"{config.batch_size}); lower it to the number of photos or add photos."
        )
    if config.compile and method.reads_gradients:
        raise ConfigError(
            f"train.compile = true cannot be used with {type(method).__name__}, which takes "
            "derivatives inside its loss; set train.compile = false."
        )
    parts = config.accumulate * runtime.world_size()
    if config.batch_size % parts:
        raise ConfigError(
            f"train.batch_size = {config.batch_size} cannot be cut into {parts} equal parts "
            f"({config.accumulate} micro-batches x {runtime.world_size()} processes); choose a "
            f"multiple of {parts}."
        )
    if config.accumulate > 1 and method.batch_coupled and not config.allow_coupled_accumulation:
        raise ConfigError(
            f"train.accumulate = {config.accumulate} changes the loss of "
            f"{type(method).__name__}: it contrasts the photos of a batch with each other, and "
            f"would see {config.batch_size // config.accumulate} instead of {config.batch_size} "
            "at a time. Use accumulate = 1 with a smaller batch or more processes, or set "
            "train.allow_coupled_accumulation = true to accept that."
        )


def _channels_last(batch: Batch) -> Batch:
    views = tuple(
        view._replace(images=view.images.contiguous(memory_format=torch.channels_last))
        for view in batch.views
    )
    return Batch(views, batch.rows, batch.key)


class _Run:
    """One call of ``fit``: everything that the steps share."""

    def __init__(
        self, method: Method, source: Source, config: TrainConfig, run: Path, device: torch.device
    ) -> None:
        runtime.tune_allocator()
        self.config, self.source, self.folder, self.device = config, source, run, device
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.method = method.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer: Optimizer = build_optimizer(method, config)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.guard = Guard(config.guard)
        self.total = config.epochs * source.steps_per_epoch
        self.observer = Observer()
        self.probe: HealthProbe | None = None
        self.after_epoch: Callable[[int], None] | None = None
        self.notes: list[str] = []
        self.precision: precision.Precision = "fp32"
        self.measured: dict[str, float] = {}

    # The run as a whole

    def train(self, identity: dict[str, Any], allow_changed: bool) -> FitResult:
        """Restore, then step until the end."""
        began = time.perf_counter()
        # Settings first: weights of another network would not even load, with a worse reason.
        self._settle(identity, allow_changed)
        saved, passed = checkpoint.load_newest(
            self.folder / _CHECKPOINTS, self.method, self.optimizer
        )
        for text in (*self.method.notes, *passed):
            self._note(text)
        self._prepare()
        done = log_size = 0
        if saved:
            done, log_size = saved.step, saved.extra["log_bytes"]
            self.guard.restore(saved.extra["guard"])
            if saved.extra["scaler"]:
                self.scaler.load_state_dict(saved.extra["scaler"])
        first = runtime.rank() == 0
        self.log = MetricsLog(self.folder, log_size, done, self.config, active=first)
        if self.log.cut_short:
            self._note("metrics.jsonl is shorter than the checkpoint says; its end is missing.")
        model: nn.Module = self.method
        if self.config.compile:
            model = cast(nn.Module, torch.compile(model))
        if self.method.synced_statistics and runtime.world_size() > 1:
            synchronize_statistics(self.method)
        self.model = runtime.data_parallel(model)
        self.speed = Speed(self.config.batch_size)
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.begun = done
        try:
            self._begin(done)
            self._steps(done)
        finally:
            self.log.close()
        runtime.barrier()
        now = max(done, self.total)
        return FitResult(
            step=now,
            epochs=now / self.source.steps_per_epoch,
            resumed_from=done,
            precision=self.precision,
            images_per_second=self.speed.overall,
            seconds=time.perf_counter() - began,
            health=read_metrics(self.folder, "health"),
            notes=self.notes,
        )

    def _prepare(self) -> None:
        """What follows from the arithmetic that was decided."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        maker = getattr(self.source, "maker", None)
        if maker is None:
            return
        if self.precision == "bf16":
            # The network's first layer would round its images anyway.
            maker.dtype = torch.bfloat16
        elif self.config.precision == "auto" and self.device.type == "cpu":
            # Several times faster on processors that multiply in bf16, and within the rounding of
            # an 8-bit pixel: worth it for a float32 network too, unless float32 was asked for.
            maker.products = torch.bfloat16

    def _begin(self, done: int) -> None:
        per_epoch, config = self.source.steps_per_epoch, self.config
        if done >= self.total and done:
            self._note(
                f"this run has already made {done} steps ({done / per_epoch:g} epochs), and "
                f"{config.epochs} epochs were asked for; ask for more epochs to go on."
            )
        self.observer.begin(
            RunPlan(
                step=done,
                total=self.total,
                steps_per_epoch=per_epoch,
                epochs=config.epochs,
                batch_size=config.batch_size,
                precision=self.precision,
                precision_seconds=self.measured,
            )
        )
        self.method.train()
        if done == 0:
            self._look(0)

    def _settle(self, identity: dict[str, Any], allow_changed: bool) -> None:
        """Compare with what the run began with; decide and keep the arithmetic."""
        saved = bool(checkpoint.available(self.folder / _CHECKPOINTS))
        now = continuity.beginning(self.config, identity, self.device)
        before = continuity.read(self.folder)
        if before is None and saved:
            raise ArtifactError(
                f"{self.folder / continuity.NAME} is missing or damaged, so the checkpoints beside "
                "it cannot be continued safely; choose another --out."
            )
        if before is not None and (saved or before.identity == now.identity):
            steps = (self.source.steps_per_epoch, self.total)
            notes = continuity.compare(
                self.folder, before, now, steps=steps, allow_changed=allow_changed
            )
            # Killed before its first checkpoint, a run begins afresh: nothing to explain.
            for text in notes if saved else ():
                self._note(text)
            self.precision = cast(precision.Precision, before.precision)
            seconds = before.precision_seconds
        else:
            # Nothing was kept yet, so nothing can disagree: a fresh run.
            self.precision, self.measured = precision.decide(
                self.config.precision, self.method, self._batch(0, 0), self.device
            )
            seconds = self.measured
        runtime.barrier()
        if runtime.rank() == 0:
            continuity.write(
                self.folder,
                now._replace(precision=self.precision, precision_seconds=seconds),
            )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.observer.note(text)

    # Steps

    def _steps(self, done: int) -> None:
        per_epoch = self.source.steps_per_epoch
        with listening() as wish:
            self.method.tell = partial(self._preparing, wish)
            for step in range(done, self.total):
                progress = Progress(step, self.total, step / per_epoch)
                if step % per_epoch == 0:
                    self.method.start_epoch(progress, self.source)
                due = runtime.rank() == 0 and self._save_due(step + 1)
                values, stopping, saving = self._step(progress, wish, due)
                self._report(step + 1, values)
                healthy = False
                if (step + 1) % per_epoch == 0:
                    healthy = self._look(step + 1)
                    if self.after_epoch is not None:
                        with self.speed.pause():
                            self.after_epoch((step + 1) // per_epoch)
                if saving or stopping or step + 1 == self.total:
                    self._save(step + 1, healthy)
                if stopping and step + 1 < self.total:
                    raise interrupted(stopping, step + 1)

    def _preparing(self, wish: Wish, what: str, done: int, total: int) -> None:
        self.observer.preparing(what, done, total)
        if wish.number and done < total:
            raise interrupted_before(wish.number, what, done, total)

    def _batch(self, step: int, micro: int) -> Batch:
        world = runtime.world_size()
        batch = self.source.batch(step, micro, self.config.accumulate, runtime.rank(), world)
        batch = move_batch(batch, self.device)
        return _channels_last(batch) if self.config.channels_last else batch

    def _step(
        self, progress: Progress, wish: Wish, save_due: bool
    ) -> tuple[dict[str, float], int, bool]:
        """One optimiser step; returns values to log, signal to stop for, whether to save."""
        micros = self.config.accumulate
        outputs: list[LossOutput] = []
        rows: list[Tensor] = []
        for micro in range(micros):
            batch = self._batch(progress.step, micro)
            outputs.append(self._backward(batch, progress, last=micro == micros - 1))
            rows.append(batch.rows)
        self.scaler.unscale_(self.optimizer)
        self.method.before_step(progress)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        names = list(outputs[0].parts)
        losses = torch.stack([output.loss for output in outputs]).detach().float().mean()
        parts = [torch.stack([o.parts[n] for o in outputs]).float().mean() for n in names]
        # One reduction and one wait for the device for everything that the host needs to know; a
        # signal that comes after it stops the next step.
        stop = wish.number
        flags = torch.tensor([float(stop), float(save_due)], device=self.device)
        told = torch.cat([torch.stack([losses, *parts]), flags])
        told = runtime.all_reduce(told).cpu().double()
        world = runtime.world_size()
        numbers = (told[:-2] / world).tolist()
        values = {"loss": numbers[0], "grad_norm": norm.item()}
        values.update(zip(names, numbers[1:], strict=True))
        self._refuse_nan(values, progress.step + 1, rows)
        if self.config.clip_norm and values["grad_norm"] > self.config.clip_norm:
            torch._foreach_mul_(gradients, self.config.clip_norm / values["grad_norm"])
        rate = learning_rate(self.config, progress)
        set_learning_rate(self.optimizer, rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.method.after_step(progress, _join([output.carry for output in outputs]))
        values["lr"] = rate
        # Several processes may each have got the signal: any of them says which.
        heard = int(told[-2] > 0) * (stop or signal.SIGTERM)
        return values, heard, bool(told[-1] > 0)

    def _backward(self, batch: Batch, progress: Progress, *, last: bool) -> LossOutput:
        torch.manual_seed(batch.key)
        with ExitStack() as stack:
            if not last:
                stack.enter_context(runtime.no_gradient_averaging(self.model))
            with precision.autocast(self.precision, self.device):
                output: LossOutput = self.model(batch, progress)
            self.scaler.scale(output.loss / self.config.accumulate).backward()
        return output

    def _refuse_nan(self, values: dict[str, float], step: int, rows: list[Tensor]) -> None:
        if self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            # fp16 overflows now and then; the scaler leaves that step out and lowers its scale.
            values = {name: value for name, value in values.items() if name != "grad_norm"}
        photos = runtime.gather(torch.cat(rows)).tolist() if not _finite(values) else []
        check_finite(values, step, photos, self.precision, self._kept)

    # After a step

    def _report(self, step: int, values: dict[str, float]) -> None:
        per_epoch = self.source.steps_per_epoch
        if step % self.config.log_every == 0:
            self.log.write(step, step / per_epoch, values)
        self.speed.step()
        rate = self.speed.recent
        left = (self.total - step) * self.config.batch_size
        self.observer.step(
            StepReport(
                step, self.total, step / per_epoch, values, rate, left / rate if rate else 0.0
            )
        )
        if step % per_epoch == 0:
            self.log.time(
                {"step": step, "images_per_second": round(rate, 2), "unix_time": time.time()}
            )
        self.guard.check_loss(values["loss"], step, self._kept)

    def _look(self, step: int) -> bool:
        """Look at health where it is due; returns whether it was, and was good."""
        epoch = step / self.source.steps_per_epoch
        if self.probe is None or (round(epoch) % self.probe.every_epochs and step < self.total):
            return False
        with self.speed.pause():
            encoder = next(iter(self.method.exports().values()))
            measures = self.probe.look(encoder, self.precision)
            self.log.write(step, epoch, measures, kind="health")
            self.observer.health(epoch, measures)
            self.guard.check_health(measures, step, self._kept)
        return True

    def _kept(self) -> str:
        healthy = checkpoint.last_healthy(self.folder / _CHECKPOINTS)
        newest = checkpoint.available(self.folder / _CHECKPOINTS)[-1:]
        if healthy:
            return f"The last checkpoint that was looked at and healthy is {healthy}."
        return f"The last checkpoint is {newest[0]}." if newest else "No checkpoint was made yet."

    def _save_due(self, step: int) -> bool:
        if self.config.checkpoint_seconds == 0:
            return True
        since = time.monotonic() - self.saved_at
        # Never more than a twentieth of the time.
        least = max(self.config.checkpoint_seconds, 20 * self.save_seconds)
        if step % self.source.steps_per_epoch == 0:
            least = least / 3
        return since >= least

    def _save(self, step: int, healthy: bool) -> None:
        if runtime.rank() == 0:
            with self.speed.pause():
                began = time.monotonic()
                self.log.sync()
                extra = {
                    "log_bytes": self.log.size,
                    "scaler": self.scaler.state_dict(),
                    "guard": self.guard.state(),
                }
                folder = self.folder / _CHECKPOINTS
                path = checkpoint.save(
                    folder, step, self.method, self.optimizer, extra, healthy=healthy
                )
                checkpoint.prune(folder)
                self.saved_at = time.monotonic()
                self.save_seconds = self.saved_at - began
                self.observer.saved(path)


def _finite(values: dict[str, float]) -> bool:
    return all(abs(value) < float("inf") for value in values.values())


def _join(carries: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Carries of micro-batches and processes, in the order of the global batch."""
    joined: dict[str, Tensor] = {}
    world = runtime.world_size()
    for name in carries[0]:
        parts = torch.stack([carry[name] for carry in carries])
        everyone = runtime.gather(parts).reshape(world, *parts.shape)
        # Slice micro * world + rank of the global batch: micro-batches outside, processes inside.
        joined[name] = everyone.transpose(0, 1).flatten(0, 2)
    return joined


class Trial(NamedTuple):
    """What a short trial of training measured."""

    images_per_second: float
    preparation_seconds: float
    """Before the first step, for all photos of the trial."""


def trial(
    method: Method,
    source: Source,
    config: TrainConfig,
    *,
    seconds: float = 10.0,
    device: torch.device | str = "cpu",
) -> Trial:
    """How fast a method prepares and makes real training steps, for plans; it is changed by them.

    Args:
        method: A throw-away copy.
        source: Makes batches.
        config: Settings.
        seconds: How long to measure, after two steps of warm-up; at least one step is made.
        device: Where to train.
    """
    _check(method, source, config)
    run = _Run(method, source, config, Path(), torch.device(device))
    run.precision, _ = precision.decide(config.precision, method, run._batch(0, 0), run.device)
    run._prepare()
    run.model = method
    method.train()
    started = time.perf_counter()
    method.start_epoch(Progress(0, run.total, 0.0), source)
    runtime.synchronise(run.device)
    preparation = time.perf_counter() - started
    speed, began, step = Speed(config.batch_size), 0.0, 0
    while True:
        run._step(Progress(step, run.total, step / source.steps_per_epoch), Wish(), False)
        runtime.synchronise(run.device)
        step += 1
        if step >= 2:
            speed.step()
            began = began or time.perf_counter()
            if speed.steps and time.perf_counter() - began >= seconds:
                return Trial(speed.overall, preparation)
