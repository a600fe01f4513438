"""Checkpoints that survive a kill, a power cut and a flipped bit. Safetensors and JSON only.

A checkpoint is a folder ``step-00000120`` with ``model.safetensors``, ``optimizer.safetensors`` and
``state.json``, which names the SHA-256 of the other two and of itself. It is written aside, synced
and renamed as a whole; the newest one that proves intact is used.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from fieldmark import storage
from fieldmark.errors import ArtifactError
from fieldmark.methods.method import Method

FORMAT = 1
_TENSORS = ("model.safetensors", "optimizer.safetensors")
_STATE = "state.json"


class Saved(NamedTuple):
    """What a checkpoint holds besides tensors."""

    folder: Path
    step: int
    healthy: bool
    """Whether health was looked at, and was good, at this very step."""
    extra: dict[str, Any]
    """What the loop keeps: log position, scaler, guard."""


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors wants row-major tensors that share no memory; tied weights do share.
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        if tensor.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        result[name] = tensor
    return result


def _optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            elif value is not None:
                numbers[f"{index}.{name}"] = value
    return tensors, numbers


def _digest(state: dict[str, Any]) -> str:
    text = json.dumps({**state, "sha256": None}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    folder: Path,
    step: int,
    method: nn.Module,
    optimizer: Optimizer,
    extra: dict[str, Any],
    *,
    healthy: bool = False,
) -> Path:
    """Write a checkpoint, whole and durable or not at all.

    Args:
        folder: The run's ``checkpoints`` folder.
        step: Optimiser steps done.
        method: All of ``state_dict()`` is saved.
        optimizer: Its averages are saved; learning rates are not, they follow from progress.
        extra: Plain data without NaN.
        healthy: Whether health was looked at, and was good, at this step.

    Returns:
        The checkpoint's folder.

    Raises:
        StorageError: Disk full or failing; earlier checkpoints are intact.
        OutputError: Not allowed to write there.
    """
    storage.make_folder(folder)
    target = folder / f"step-{step:08d}"
    aside = folder / f".{target.name}.partial"
    with storage.storage_errors(target):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            tensors, numbers = _optimizer_tensors(optimizer)
            for name, content in zip(_TENSORS, (method.state_dict(), tensors), strict=True):
                with _safetensors_errors():
                    save_file(_own(content), aside / name)
                storage.sync_file(aside / name)
            state = {
                "format": FORMAT,
                "step": step,
                "healthy": healthy,
                "files": {name: storage.sha256_of(aside / name) for name in _TENSORS},
                "optimizer": numbers,
                "extra": extra,
                "sha256": None,
            }
            state["sha256"] = _digest(state)
            storage.write_json(aside / _STATE, state)
            storage.sync_folder(aside)
            if target.exists():
                # Damaged, or made before a step back to an older one: the new one is as good.
                old = folder / f".{target.name}.old"
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        storage.sync_folder(folder)
    return target


@contextlib.contextmanager
def _safetensors_errors() -> Iterator[None]:
    # The library reports a full disk as its own error type, with the number only in the text.
    try:
        yield
    except SafetensorError as error:
        text = str(error)
        if "os error" not in text:
            raise
        number = int("".join(c for c in text.rsplit("os error", 1)[1] if c.isdigit()) or 5)
        raise OSError(number, os.strerror(number)) from error


def available(folder: Path) -> list[Path]:
    """Checkpoints, oldest first, intact or not."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def prune(folder: Path, keep: int = 2) -> None:
    """Remove what is no longer needed: all but the newest ``keep`` and the newest healthy one."""
    found = available(folder)
    healthy = [path for path in found if _is_healthy(path)][-1:]
    for path in found:
        if path not in found[-keep:] and path not in healthy:
            # Renamed first: a half-removed folder must not look like a damaged checkpoint.
            gone = folder / f".{path.name}.old"
            shutil.rmtree(gone, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.rename(gone)
    for path in [*folder.glob(".step-*.old"), *folder.glob(".step-*.partial")]:
        shutil.rmtree(path, ignore_errors=True)


def _is_healthy(path: Path) -> bool:
    with contextlib.suppress(ArtifactError):
        return bool(read_state(path)["healthy"])
    return False


def last_healthy(folder: Path) -> Path | None:
    """The newest checkpoint at which health was looked at and was good."""
    found = [path for path in available(folder) if _is_healthy(path)]
    return found[-1] if found else None


def read_state(path: Path) -> dict[str, Any]:
    """Read and prove a checkpoint's ``state.json``.

    Raises:
        ArtifactError: Missing, not JSON, of another format, or changed since it was written.
    """
    try:
        state = json.loads((path / _STATE).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path / _STATE} cannot be read: {error}.") from None
    if not isinstance(state, dict) or state.get("sha256") is None:
        raise ArtifactError(f"{path / _STATE} is not a checkpoint's state.")
    if _digest(state) != state["sha256"]:
        raise ArtifactError(f"{path / _STATE} was changed or damaged since it was written.")
    if state["format"] != FORMAT:
        raise ArtifactError(
            f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}; "
            "continue the run with the version that began it."
        )
    return state


def _verified(path: Path) -> dict[str, Any]:
    state = read_state(path)
    for name in _TENSORS:
        try:
            found = storage.sha256_of(path / name)
        except OSError as error:
            raise ArtifactError(f"{path / name} cannot be read: {error.strerror}.") from None
        if found != state["files"][name]:
            raise ArtifactError(f"{path / name} was changed or damaged since it was written.")
    return state


def load_newest(
    folder: Path, method: nn.Module, optimizer: Optimizer
) -> tuple[Saved | None, list[str]]:
    """Restore the newest intact checkpoint.

    Args:
        folder: The run's ``checkpoints`` folder.
        method: Filled in place.
        optimizer: Filled in place; built for the same parameters.

    Returns:
        What was restored (None when there is no checkpoint at all) and one sentence for each
        newer checkpoint that had to be passed over.

    Raises:
        ArtifactError: If there are checkpoints and none is usable, or they are of another network.
    """
    passed: list[str] = []
    for path in reversed(available(folder)):
        try:
            state = _verified(path)
        except ArtifactError as error:
            passed.append(f"checkpoint {path.name} is damaged and was passed over: {error}")
            continue
        _restore_method(path, method)
        _restore_optimizer(path, optimizer, state["optimizer"])
        return Saved(path, state["step"], state["healthy"], state["extra"]), passed
    if passed:
        raise ArtifactError(
            f"no usable checkpoint is left in {folder}. {' '.join(passed)} Remove that folder to "
            "start the run again from its beginning."
        )
    return None, []


def load_weights(path: Path, method: nn.Module) -> None:
    """Restore a method's state from one checkpoint, such as :func:`last_healthy`.

    Raises:
        ArtifactError: If the checkpoint is damaged or of another network.
    """
    _verified(path)
    _restore_method(path, method)


def _restore_method(path: Path, method: nn.Module) -> None:
    tensors = load_file(path / _TENSORS[0])
    if isinstance(method, Method):
        method.make_room(tensors)
    own = method.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    # What is kept per photo has the length that the run gave it.
    grown = {
        f"{name}.{key}"
        for name, part in method.named_modules()
        for key in getattr(part, "any_length", ())
    }
    other = [
        name
        for name in own.keys() & tensors.keys()
        if own[name].shape[name in grown :] != tensors[name].shape[name in grown :]
    ]
    if missing or unknown or other:
        example = (missing or unknown or sorted(other))[0]
        raise ArtifactError(
            f"{path} holds another network or method ({len(missing)} tensors missing, "
            f"{len(unknown)} unknown, {len(other)} of another shape, such as {example}); use the "
            "settings that the run began with, or another --out."
        )
    method.load_state_dict(tensors)


def _restore_optimizer(path: Path, optimizer: Optimizer, numbers: dict[str, Any]) -> None:
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    filled: dict[int, dict[str, Any]] = {}
    values: dict[str, Any] = {**load_file(path / _TENSORS[1]), **numbers}
    for key, value in values.items():
        index, name = key.split(".", 1)
        if int(index) >= len(parameters):
            raise ArtifactError(
                f"{path} holds the optimiser of another network; use another --out."
            )
        if isinstance(value, Tensor) and value.ndim:
            # Same memory layout as the weight, or the update kernels would be slow.
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        filled.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": filled, "param_groups": state["param_groups"]})
