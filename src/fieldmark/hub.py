"""Encoders on a model hub: a folder's way there and back, and what its page says.

Nothing is fetched unless it was allowed: a name is looked for in the local cache.
"""

import os
import re
from pathlib import Path
from typing import Any

from fieldmark.backbones.provenance import Ledger
from fieldmark.backbones.weights import DOWNLOAD_VARIABLE
from fieldmark.errors import ArtifactError, MissingExtraError, OutputError
from fieldmark.nn.places import OFFLINE_VARIABLE, offline

FILES = ("config.json", "model.safetensors", "README.md")
"""What an encoder's folder on a hub holds."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_YES = {"1", "true", "yes", "on"}
# Names that the hub gives licences; others are told in words.
_LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
}  # fmt: skip


def is_name(text: str) -> bool:
    """Whether a text can be a repository's name, ``owner/name``."""
    return bool(_NAME.fullmatch(text)) and ".." not in text


def front_matter(card: dict[str, Any], ledger: Ledger) -> str:
    """The block that a hub reads at the top of a model's page.

    A licence is named only where starting weights and photos are known to stand under the same one;
    what is not known is called unknown.

    Args:
        card: What ``encoder.json`` holds.
        ledger: Licences.
    """
    spec = card["spec"]
    licence = _common(ledger)
    lines = ["---"]
    if licence == "unknown" or licence.lower() in _LICENCES:
        lines.append(f"license: {licence.lower()}")
    else:
        lines += ["license: other", f"license_name: {_quoted(licence)}"]
    lines += [
        "library_name: fieldmark",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in ("fieldmark", "image-feature-extraction", "fine-grained")),
        f"- {_quoted(str(spec['backbone']['name']))}",
    ]
    if is_name(ledger.weights_source):
        lines.append(f"base_model: {ledger.weights_source}")
    return "\n".join([*lines, "---", ""])


def _common(ledger: Ledger) -> str:
    terms = {ledger.weights, ledger.photos_licence} - {"none"}
    if "unknown" in terms:
        return "unknown"
    if len(terms) > 1:
        return f"weights: {ledger.weights}; photos: {ledger.photos_licence}"
    # Nothing but the code went into it.
    return terms.pop() if terms else ledger.code


def fetch(name: str, *, download: bool | None = None) -> Path:
    """Find an encoder of a hub: in the local cache, or on the hub where that is allowed.

    Args:
        name: ``owner/name``.
        download: Whether the network may be used; None: where ``FIELDMARK_ALLOW_DOWNLOAD`` says so.
            Never with ``FIELDMARK_OFFLINE`` or ``HF_HUB_OFFLINE``.

    Returns:
        A folder of the cache.

    Raises:
        ArtifactError: If it is not there, or cannot be fetched.
        MissingExtraError: Without huggingface_hub.
    """
    hub = _hub()
    if download is None:
        download = os.environ.get(DOWNLOAD_VARIABLE, "").lower() in _YES
    online = download and not offline()
    try:
        found = hub.snapshot_download(name, allow_patterns=list(FILES), local_files_only=not online)
    except Exception as error:  # the hub's client raises from many libraries
        detail = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
        if online:
            raise ArtifactError(
                f"encoder '{name}' could not be downloaded ({detail}); check name and network, or "
                "copy its folder here and give the folder."
            ) from None
        raise ArtifactError(
            f"there is no folder '{name}' and no encoder of that name in the local hub cache, and "
            f"nothing was fetched; give a folder, or allow it with download=True or "
            f"{DOWNLOAD_VARIABLE}=1 (and without {OFFLINE_VARIABLE})."
        ) from None
    return Path(found)


def push(
    folder: Path, name: str, *, private: bool = True, message: str = "Encoder by fieldmark"
) -> str:
    """Upload an encoder's folder; asking for it is the permission to use the network.

    Args:
        folder: Holds ``FILES``.
        name: ``owner/name``; created where it is not there.
        private: Whether a repository that is created can be seen by its owner alone.
        message: Of the commit.

    Returns:
        Where it is now.

    Raises:
        OutputError: If the name is none, the program is told to stay offline, or the hub refuses.
        MissingExtraError: Without huggingface_hub.
    """
    if not is_name(name):
        raise OutputError(
            f"'{name}' is no repository of a hub; names are owner/name, such as ada/warblers."
        )
    if offline():
        raise OutputError(
            f"'{name}' was not uploaded: {OFFLINE_VARIABLE} or HF_HUB_OFFLINE is set; unset it."
        )
    api = _hub().HfApi()
    try:
        api.create_repo(repo_id=name, repo_type="model", private=private, exist_ok=True)
        told = api.upload_folder(
            repo_id=name,
            repo_type="model",
            folder_path=str(folder),
            allow_patterns=list(FILES),
            commit_message=message,
        )
    except Exception as error:  # the hub's client raises from many libraries
        detail = str(error).splitlines()[0][:200] if str(error) else ""
        raise OutputError(
            f"'{name}' was not uploaded ({type(error).__name__}: {detail}); log in with 'hf auth "
            "login' and check that you may write there."
        ) from None
    return str(getattr(told, "commit_url", told))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub", "to use a model hub") from None
    return huggingface_hub


def _quoted(text: str) -> str:
    # YAML would read a colon, a number or a word such as "no" as something else.
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'
