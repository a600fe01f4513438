"""Whether a run folder may be gone on with: what it began with, against what is asked now."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fieldmark import runtime, storage
from fieldmark.errors import OutputError
from fieldmark.training.config import TrainConfig

NAME = "training.json"
_FORMAT = 1
_FREE = {"epochs", "checkpoint_seconds", "log_every", "tensorboard", "wandb", "guard"}
"""Settings of training that may change without changing what the next step computes."""


class Beginning(NamedTuple):
    """What decides a run's numbers."""

    identity: dict[str, Any]
    """Photos, method, network and settings, as plain data."""
    epochs: int
    threads: int
    processes: int
    device: str
    precision: str = "fp32"
    precision_seconds: dict[str, float] = {}


def beginning(config: TrainConfig, identity: dict[str, Any], device: torch.device) -> Beginning:
    """What a run that starts now begins with; its arithmetic is still to be decided."""
    settings = {key: value for key, value in config.dump().items() if key not in _FREE}
    # As it will be read back: tuples become lists.
    plain = json.loads(json.dumps({**identity, "train": settings}))
    return Beginning(
        plain, config.epochs, torch.get_num_threads(), runtime.world_size(), device.type
    )


def read(run: Path) -> Beginning | None:
    """What the run in this folder began with; None when that is missing or damaged."""
    try:
        data = json.loads((run / NAME).read_bytes())
        return Beginning(**data["began"]) if data["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(run: Path, now: Beginning) -> None:
    """Keep it with the run."""
    storage.write_json(run / NAME, {"format": _FORMAT, "began": now._asdict()})


def compare(
    run: Path, before: Beginning, now: Beginning, *, steps: tuple[int, int], allow_changed: bool
) -> list[str]:
    """Say what going on means.

    Args:
        run: Run folder, for the error's text.
        before: What the run began with.
        now: What is asked.
        steps: Steps per epoch and steps of the whole run, now.
        allow_changed: Go on even though photos or settings changed.

    Returns:
        Sentences for the user; none when everything is as it was.

    Raises:
        OutputError: Photos or settings changed, and that was not allowed.
    """
    notes = []
    changes = differences(before.identity, now.identity)
    photos = _photos(before.identity, now.identity, now.epochs, steps)
    if changes and not allow_changed:
        raise OutputError(
            f"{run} holds a run with other settings: {'; '.join(changes)}.{photos} Training goes "
            "on only with the photos and settings that it began with: undo the change, choose "
            "another --out for a new run, or allow the change to go on from here."
        )
    if changes:
        notes.append(f"the run goes on with changed settings: {'; '.join(changes)}.{photos}")
    if before.epochs != now.epochs:
        notes.append(
            f"epochs changed from {before.epochs} to {now.epochs}: learning rate and other "
            "schedules are functions of the share of the run that is done, so from here on they "
            "follow the new length; the result is not that of a run that had "
            f"{now.epochs} epochs from its beginning."
        )
    others = {
        "threads": (before.threads, now.threads),
        "processes": (before.processes, now.processes),
        "device": (before.device, now.device),
    }
    for name, (old, new) in others.items():
        if old != new:
            notes.append(
                f"the run began with {name} {old} and goes on with {new}: photos and views stay "
                "the same, last digits of the results may differ."
            )
    return notes


def _photos(
    before: dict[str, Any], now: dict[str, Any], epochs: int, steps: tuple[int, int]
) -> str:
    old, new = before.get("photos"), now.get("photos")
    if not isinstance(old, dict) or not isinstance(new, dict) or old == new:
        return ""
    return (
        f" There were {old.get('count')} photos and are {new.get('count')} now: an epoch has "
        f"{steps[0]} steps, the order of photos is drawn anew, and {epochs} epochs are {steps[1]} "
        "steps of which those already made count."
    )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two pieces of plain data, one sentence part each."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted(before.keys() | now.keys()):
            inner = f"{name}.{key}" if name else key
            found += differences(before.get(key), now.get(key), inner)
        return found
    return [] if before == now else [f"{name} was {_short(before)}, is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
