"""Tell what this installation can do, and what is wrong with it."""

import functools
import hashlib
import importlib.metadata
import platform
import time
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "simplejpeg",
    "safetensors",
    "scikit-learn",
    "faiss-cpu",
)
EXTRAS = {
    "pyarrow": "parquet",
    "pillow-heif": "heic",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "psycopg": "postgres",
    "pgvector": "postgres",
    "open-clip-torch": "text",
    "transformers": "text",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "huggingface-hub": "hub",
}


def versions() -> dict[str, str | None]:
    """Installed version of fieldmark, Python and each package; None where missing."""
    found: dict[str, str | None] = {
        "fieldmark": installed_version("fieldmark"),
        "python": platform.python_version(),
    }
    found.update({name: installed_version(name) for name in (*PACKAGES, *EXTRAS)})
    return found


@functools.cache
def code_hash() -> str:
    """SHA-256 of the package's source: tells checkouts of the same version apart."""
    package = Path(__file__).parents[1]
    total = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        total.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return total.hexdigest()


def installed_version(package: str) -> str | None:
    """Of a package; None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine(seconds: float = 10.0) -> dict[str, Any]:
    """Look the installation over.

    Args:
        seconds: Time for the speed check; 0 leaves it out.

    Returns:
        ``versions``, ``machine``, ``devices``, ``allocator``, ``problems`` (each with what to do),
        ``speed`` (images per second of a MobileNetV2 forward at 128 px).
    """
    problems: list[str] = []
    report: dict[str, Any] = {
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "problems": problems,
    }
    try:
        import torch
    except Exception as error:
        problems.append(
            f"torch does not import ({error}); reinstall torch and torchvision together."
        )
        return report
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        problems.append(
            f"torchvision {installed_version('torchvision')} does not import beside torch {torch.__version__} "
            f"({str(error).splitlines()[0]}); they were built for different releases: install both "
            "again in one command (pip install --force-reinstall torch torchvision)."
        )
        return report
    from fieldmark import runtime

    applied = runtime.tune_allocator()
    report["devices"] = {
        "chosen": str(runtime.pick_device()),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "processors": runtime.processor_count(),
        "bf16": _bf16_features(),
    }
    report["allocator"] = (
        "large buffers are kept between steps (glibc mallopt)"
        if applied
        else "system default; training with large batches may lose time to page faults"
    )
    if torch.get_num_threads() > runtime.processor_count():
        problems.append(
            f"torch uses {torch.get_num_threads()} threads on {runtime.processor_count()} processors; "
            "set OMP_NUM_THREADS to the number of processors."
        )
    if seconds > 0:
        report["speed"] = _speed(seconds)
    return report


def _bf16_features() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda" if torch.cuda.is_bf16_supported() else "none"
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    return "avx512" if torch.cpu._is_avx512_bf16_supported() else "emulated (slow)"


def _speed(seconds: float) -> dict[str, float]:
    import timm
    import torch

    from fieldmark import runtime

    device = runtime.pick_device()
    network = timm.create_model("mobilenetv2_100", num_classes=0).eval().to(device)
    network = network.to(memory_format=torch.channels_last)
    images = torch.rand(32, 3, 128, 128, device=device).to(memory_format=torch.channels_last)
    rates: dict[str, float] = {}
    for name, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            network(images)
            done, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < seconds / 2:
                network(images).sum().item()
                done += len(images)
            rates[name] = round(done / (time.perf_counter() - begin), 1)
    return rates
