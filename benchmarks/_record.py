"""Writes what was measured, with machine, versions and commit, to benchmarks/results/."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from fieldmark.workflows.doctor import PACKAGES, installed_version
from fieldmark.workflows.run import processor

RESULTS = Path(__file__).parent / "results"
# What figures are held against, beside what fieldmark itself rests on.
RIVALS = ("lightly", "torchmetrics", "pytorch-metric-learning")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPU, without names or paths."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result: dict[str, Any] = {"processor": processor(), "cores": cores, "system": platform.system()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        result["memory_gib"] = round(size / 2**30, 1)
    if hasattr(os, "getloadavg"):
        # A loaded machine makes ratios doubtful and absolute numbers useless.
        result["load"] = round(os.getloadavg()[0], 2)
    try:
        import torch

        if torch.cuda.is_available():
            result["gpu"] = torch.cuda.get_device_name()
        result["threads"] = torch.get_num_threads()
    except ImportError:
        pass
    return result


def versions() -> dict[str, str]:
    """Python and the packages that matter for speed, where they are installed."""
    found = {name: installed_version(name) for name in (*PACKAGES, *RIVALS)}
    return {"python": platform.python_version(), **{k: v for k, v in found.items() if v}}


def commit() -> str:
    """Short commit of the work tree, with ``+`` where tracked files were changed."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
        return done.stdout.strip()

    changed = "+" if git("status", "--porcelain", "--untracked-files=no", "../src") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def measured() -> dict[str, Any]:
    """When, at which commit and under what load a part of a result was measured."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "load": machine().get("load"),
    }


def encoder_facts(encoder: Any) -> dict[str, Any]:
    """Which encoder a figure is of: network, input, start, and the run that it came from."""
    run = encoder.card.get("settings", {})
    train = run.get("train", {})
    return {
        "identity": encoder.identity[:12],
        "network": encoder.spec.backbone.config.name,
        "size": encoder.size,
        "dim": encoder.dim,
        "role": encoder.card.get("role"),
        "start": encoder.provenance.sentence(),
        **({"recipe": run.get("name")} if run else {}),
        **{key: train[key] for key in ("epochs", "seed") if key in train},
    }


def record(name: str, result: dict[str, Any]) -> Path:
    """Write ``results/<name>.json``, replacing an older one.

    Args:
        name: File name without extension.
        result: Plain data: what was measured, the target, the settings.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    data = {
        "name": name,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **result,
    }
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    return path
