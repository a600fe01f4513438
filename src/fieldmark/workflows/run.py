"""The run folder: where everything about one run is, and whose run it is.

RUN/
├── config.resolved.toml   every setting            ├── environment.json   machine and versions
├── run.json               what the run was made of ├── result.json        the contract of --json
├── store/                 decoded photos           ├── checkpoints/  metrics.jsonl
├── encoders/{start,student,teacher}/               ├── encoder/           the one that ships
├── evaluation.json        every measure of every test photo
└── report.html  report.json
"""

import json
import platform
import re
from pathlib import Path
from typing import Any

from fieldmark import __version__, storage
from fieldmark.config import to_toml
from fieldmark.errors import ArtifactError, OutputError
from fieldmark.workflows import recipe as recipes
from fieldmark.workflows.doctor import code_hash, versions
from fieldmark.workflows.recipe import Recipe

# Settings that a finished or stopped run may be continued with.
MAY_CHANGE = {"train.epochs", "ship", "description", "train.checkpoint_seconds", "train.wandb"}


def default_folder(photos: Path, recipe: str) -> Path:
    """Where a run goes when nobody says: ``runs/PHOTOS-RECIPE`` below the current folder.

    The same photos and recipe give the same folder, so the same command continues its run.
    """
    name = Path(photos).resolve().name.split(".")[0]
    return Path("runs") / re.sub(r"\W+", "-", f"{name}-{recipe}").strip("-")


def file_name(text: str) -> str:
    """Any text as the name of a file or folder."""
    return re.sub(r"[^\w.+-]+", "-", text)


def claim_folder(out: Path, marker: str, what: str) -> None:
    """Create a folder for results, or make sure that it holds such results.

    Args:
        out: The folder.
        marker: File by which they are known.
        what: What they are, in words.

    Raises:
        OutputError: If it is a file or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out {out} is a file; give a folder for {what}.")
    if not (out / marker).is_file() and out.is_dir() and any(out.iterdir()):
        raise OutputError(
            f"--out {out} is not empty and holds not {what}; give a new folder, or that of {what} "
            "to continue."
        )
    storage.make_folder(out)


class RunFolder:
    """One run's folder.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.encoder = path / "encoder"
        self.report = path / "report.html"
        self.result = path / "result.json"
        self.evaluation = path / "evaluation.json"

    def encoder_of(self, who: str) -> Path:
        """Folder of ``start``, ``student`` or ``teacher``."""
        return self.path / "encoders" / who

    @property
    def candidate(self) -> Path:
        """Folder of the encoder that was judged: trained, or the start where nothing is trained.

        Raises:
            ArtifactError: If the run is not finished.
        """
        try:
            told = json.loads(self.result.read_text(encoding="utf-8"))
            return self.encoder_of(told["candidate"])
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"{self.result} cannot be read ({error}); run the same fieldmark train again to finish "
                "the run."
            ) from None

    def claim(self, recipe: Recipe, made_of: dict[str, Any]) -> None:
        """Create the folder for a run, or make sure that it holds this very run.

        Args:
            recipe: Resolved settings.
            made_of: What else defines the run, such as the photos and the probe table.

        Raises:
            OutputError: If the folder holds something else or another run; says what differs.
        """
        claim_folder(self.path, "run.json", "a fieldmark run")
        run_file = self.path / "run.json"
        if run_file.is_file():
            self._same_run(recipe, made_of)
        storage.write_text(self.path / "config.resolved.toml", to_toml(recipe))
        storage.write_json(
            self.path / "environment.json",
            {
                "versions": versions(),
                "code_sha256": code_hash(),
                "system": platform.platform(),
                "processor": processor(),
            },
        )
        storage.write_json(run_file, {"fieldmark": __version__, **made_of})

    def _same_run(self, recipe: Recipe, made_of: dict[str, Any]) -> None:
        old = flatten(self.recipe().dump())
        new = flatten(recipe.dump())
        before = json.loads((self.path / "run.json").read_text())
        old.update({f"run.{key}": value for key, value in before.items() if key != "fieldmark"})
        new.update({f"run.{key}": value for key, value in made_of.items()})
        different = [
            f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and key not in MAY_CHANGE
        ]
        if different:
            raise OutputError(
                f"--out {self.path} holds another run: {'; '.join(different)}. "
                "Use a new folder for new settings, or the old settings to continue this run."
            )

    def recipe(self) -> Recipe:
        """The settings that the run was made with.

        Raises:
            ArtifactError: If the folder holds no run.
        """
        path = self.path / "config.resolved.toml"
        if not path.is_file():
            raise ArtifactError(
                f"{self.path} is not a fieldmark run: config.resolved.toml is missing. "
                "Give the folder that was --out of fieldmark train."
            )
        return recipes.from_toml(path.read_text(encoding="utf-8"), str(path))


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def processor() -> str:
    """Name of the processor, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
