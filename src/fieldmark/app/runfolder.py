"""What one run folder tells, whatever state it is in: made by an older version, being written, or cut short.

Nothing here fails because of what a file holds: what cannot be read is left out, and the card says so by
being emptier. Only names, never paths, leave this module.
"""

import itertools
import json
import math
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fieldmark.training.lock import is_held

State = Literal["running", "finished", "stopped"]

MARKERS = ("run.json", "config.resolved.toml", "training.json")
"""A folder with one of these is a run."""
LINES = 5_000
"""Lines of metrics in one answer."""
_SMALL = 4_000_000
"""Bytes: larger settings or results are not ours, and are not read."""
_TAIL = 65_536


class RunCard(BaseModel):
    """One run in a list."""

    run: str
    """Opaque id."""
    name: str
    """The folder's name, with those above it where it alone says little."""
    state: State
    recipe: str = ""
    photos: int | None = None
    """Photos that it trains on."""
    epoch: float | None = None
    """Epochs done; None before the first step, and where nothing is trained."""
    epochs: float | None = None
    verdict: str | None = None
    """``helped``, ``hurt``, ``no difference shown`` or ``not measured``; None before the end."""
    sentence: str | None = None
    started: str | None = None
    """ISO 8601, UTC."""
    updated: str
    """When it last wrote something; ISO 8601, UTC."""


class Pace(BaseModel):
    """How fast a run that trains goes."""

    images_per_second: float | None = None
    eta_seconds: float | None = None
    """Of training alone; the measuring comes after."""
    measuring: bool = False
    """All epochs are done, and both encoders are being measured."""


class Lines(BaseModel):
    """Part of the log of a run."""

    lines: list[dict[str, Any]]
    """As they were written; one that cannot be read is ``{"kind": "unreadable"}``."""
    next: int = Field(ge=0)
    """Ask again from here. Lines of this answer are those before it: a run that is continued cuts off what its
    last checkpoint does not hold, and then this is less than what was asked for."""
    more: bool = False
    """Whether there are further lines already."""


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return any((folder / name).is_file() for name in MARKERS)


def card(folder: Path, run: str, name: str) -> RunCard:
    """The card of one run."""
    training = _object(folder / "training.json").get("began")
    began = training if isinstance(training, dict) else {}
    settings = _settings(folder)
    result = _object(folder / "result.json")
    held = is_held(folder)
    last = last_line(folder / "metrics.jsonl")
    finished = bool(result) and not held
    identity = began.get("identity")
    counted = identity.get("photos") if isinstance(identity, dict) else None
    train = settings.get("train")
    given = train.get("epochs") if isinstance(train, dict) and "method" in settings else None
    return RunCard(
        run=run,
        name=name,
        state="running" if held else "finished" if finished else "stopped",
        recipe=_text(settings.get("name")) or "",
        photos=_whole(counted.get("count") if isinstance(counted, dict) else None),
        epoch=_number(last.get("epoch")),
        # Those of the settings may have been raised since; a run takes them over when it is continued.
        epochs=_number(given) or _number(began.get("epochs")),
        verdict=_text(result.get("verdict")) if finished else None,
        sentence=_text(result.get("sentence")) if finished else None,
        started=_started(folder),
        updated=_iso(_updated(folder)),
    )


def pace(folder: Path, told: RunCard) -> Pace:
    """How fast a running run goes, from its last lines; empty for any other."""
    if told.state != "running":
        return Pace()
    measuring = bool(told.epochs and told.epoch and told.epoch >= told.epochs - 1e-6)
    timing = last_line(folder / "timing.jsonl")
    last = last_line(folder / "metrics.jsonl")
    rate = _number(timing.get("images_per_second"))
    step, epoch = _number(last.get("step")), told.epoch
    left = None
    if rate and step and epoch and told.epochs and told.photos and not measuring:
        left = max(0.0, told.epochs - epoch) * told.photos / rate
    return Pace(images_per_second=rate, eta_seconds=left, measuring=measuring)


def metrics(folder: Path, since: int) -> Lines:
    """Lines of the log from a number on, whole ones only."""
    found: list[dict[str, Any]] = []
    number, more = 0, False
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if len(found) == LINES:
                    more = True
                    break
                number += 1
                if number > since:
                    found.append(_read(line) or {"kind": "unreadable"})
    except OSError:
        pass
    return Lines(lines=found, next=number, more=more)


def last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a log that can be read; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return {}
    whole = tail[: tail.rfind(b"\n") + 1]
    readable = (_read(line) for line in reversed(whole.splitlines()))
    return next((line for line in itertools.islice(readable, 100) if line), {})


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return (
        {clean_text(key): _clean(value) for key, value in told.items()}
        if isinstance(told, dict)
        else None
    )


def _clean(value: Any) -> Any:
    """Numbers and text as they are; NaN and infinity, which JSON lacks, and anything else as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return (
        clean_text(value) if isinstance(value, str) else value if isinstance(value, int) else None
    )


def clean_text(text: str) -> str:
    """Without lone surrogates, which come from odd file names and which no encoder accepts."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _SMALL:
            return {}
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _settings(folder: Path) -> dict[str, Any]:
    # Not as a Recipe: settings of other versions may have names that this one does not know.
    path = folder / "config.resolved.toml"
    try:
        return {} if path.stat().st_size > _SMALL else tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    # An integer of a thousand digits is one that JSON allows and float does not.
    number = float(value) if abs(value) < 1e300 else math.inf
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _text(value: Any) -> str | None:
    return clean_text(value[:2_000]) if isinstance(value, str) else None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _updated(folder: Path) -> float:
    names = (*MARKERS, "metrics.jsonl", "timing.jsonl", "result.json", "report.json")
    return max(_modified(folder / name) for name in names)


def _started(folder: Path) -> str | None:
    # The environment is written when a run begins or is continued, before anything is computed.
    begun = _modified(folder / "environment.json") or _modified(folder / "run.json")
    return _iso(begun) if begun else None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
