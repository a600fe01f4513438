"""Where the files of a text-image teacher are, and one way to say that they are not there."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from fieldmark.backbones.weights import FOLDER_VARIABLE
from fieldmark.errors import FieldmarkError, WeightsError

OFFLINE_VARIABLE = "FIELDMARK_OFFLINE"
HOW_TO_GET = (
    "To get one: pip install 'fieldmark[text]', then on a machine with a network "
    "'hf download openai/clip-vit-base-patch32 --local-dir clip', and name it "
    "'transformers:clip'."
)


def offline() -> bool:
    """Whether nothing may be fetched."""
    yes = {"1", "true", "yes", "on"}
    return any(
        os.environ.get(name, "").lower() in yes for name in (OFFLINE_VARIABLE, "HF_HUB_OFFLINE")
    )


def without_folder(name: str) -> str:
    """A name, or what a path of this machine ends in, whatever stands before its last colon.

    Example:
        >>> without_folder("transformers:/home/ada/clip"), without_folder("birds")
        ('transformers:clip', 'birds')
    """
    *before, place = name.split(":")
    path = Path(place)
    inside = path.is_absolute() or place.startswith("~")
    return ":".join([*before, path.name if inside else place])


def find(place: str) -> Path | None:
    """A file or folder of that name, here or in the folder for weights."""
    path = Path(place).expanduser()
    if path.exists():
        return path
    folder = os.environ.get(FOLDER_VARIABLE)
    inside = Path(folder).expanduser() / place if folder and not path.is_absolute() else None
    return inside if inside is not None and inside.exists() else None


def only_safetensors(folder: Path) -> Path:
    """The weights in a folder.

    Raises:
        WeightsError: If it holds pickles only, or nothing.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(
            f"{folder} holds no .safetensors file; pickles are never read here. Download the "
            f"teacher's .safetensors file into it. {HOW_TO_GET}"
        )
    preferred = ("open_clip_model.safetensors", "model.safetensors")
    return min(files, key=lambda file: preferred.index(file.name) if file.name in preferred else 9)


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what the packages raise into one paragraph that says how to get the teacher."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FieldmarkError:
        raise
    except Exception as error:  # both packages raise from many libraries
        state = f"; downloading is switched off ({OFFLINE_VARIABLE})" if offline() else ""
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise WeightsError(
            f"the text teacher '{name}' could not be loaded ({type(error).__name__}: {first})"
            f"{state}. {HOW_TO_GET}"
        ) from None
