"""Where starting weights come from and what they have seen (docs/design.md, promise 3)."""

import re
from typing import Any, Literal

from fieldmark.config import Config

CODE_LICENCE = "Apache-2.0"

How = Literal["supervised", "self-supervised", "text-supervised", "distilled", "random", "unknown"]

_LICENCES = re.compile(
    r"(Apache-2\.0|MIT|BSD-[23]-Clause|CC0-1\.0|CC-BY(?:-NC)?(?:-SA)?(?:-ND)?-\d\.\d)",
    re.IGNORECASE,
)
_SELF = (
    "dino",
    "mae",
    "moco",
    "simclr",
    "byol",
    "swav",
    "ijepa",
    "ssl",
    "ibot",
    "mim",
    "fcmae",
    "lvd",
)
_TEXT = ("clip", "siglip", "openai", "laion", "metaclip", "datacomp")
_DATA = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "ig1b": "Instagram-1B",
    "inat21": "iNaturalist 2021",
    "jft": "JFT",
    "webli": "WebLI",
}


class Provenance(Config):
    """How a network's weights were made; travels into every artifact and report."""

    how: How = "unknown"
    """How the weights were trained before fieldmark saw them."""
    data: str = "unknown"
    """What they were trained on."""
    licence: str = "unknown"
    """Terms of use of the weights."""
    source: str = "unknown"
    """Where they came from: file name, hub name, or a sentence of the file's own metadata."""
    sha256: str | None = None
    """Hash of the weights file."""
    labels_seen: str = "unknown"
    """Whose labels the weights have learnt from; "none" when they never saw any."""
    notes: tuple[str, ...] = ()
    """Anything else worth telling, such as training done since."""

    def sentence(self) -> str:
        """One line for reports and cards."""
        seen = {"none": "saw no labels", "unknown": "labels seen: not stated"}.get(
            self.labels_seen, f"saw the labels of {self.labels_seen}"
        )
        if self.how == "random":
            return "random weights (no training before fieldmark)"
        return f"{self.how} weights, trained on {self.data} ({seen}); licence {self.licence}"


class Ledger(Config):
    """Terms that an artifact stands under, as far as they were told; nothing is guessed.

    A network trained on photos or from weights may inherit their terms; which, is for a lawyer.
    """

    code: str = CODE_LICENCE
    """Licence of fieldmark itself."""
    weights: str = "unknown"
    """Terms of the starting weights."""
    weights_source: str = "unknown"
    """Where the starting weights came from."""
    weights_sha256: str | None = None
    """Hash of their file."""
    weights_data: str = "unknown"
    """What they were trained on."""
    labels_seen: str = "unknown"
    """Whose labels the network has learnt from; "none" when it never saw any."""
    photos: str = "unknown"
    """What fieldmark trained on; "none" when it did not train."""
    photos_licence: str = "unknown"
    """Terms of those photos."""

    def rows(self) -> list[tuple[str, str]]:
        """What and terms, for cards and tables."""
        return [
            ("code (fieldmark)", self.code),
            ("starting weights", self.weights),
            ("source of the weights", self.weights_source),
            ("SHA-256 of the weights' file", self.weights_sha256 or "unknown"),
            ("photos the weights were trained on", self.weights_data),
            ("labels seen", self.labels_seen),
            ("photos fieldmark trained on", self.photos),
            ("licence of those photos", self.photos_licence),
        ]

    def sentence(self) -> str:
        """One line for people."""
        return (
            f"licences: code {self.code}; starting weights {self.weights}; photos trained on "
            f"{self.photos_licence}; labels seen: {self.labels_seen}."
        )


def ledger(provenance: Provenance, card: dict[str, Any]) -> Ledger:
    """What is known of an encoder's licences.

    Args:
        provenance: Of its starting weights.
        card: The encoder's own; ``photos_source`` and ``photos_licence`` are read, where texts.
    """

    def told(key: str) -> str:
        value = card.get(key)
        return value if isinstance(value, str) and value.strip() else "unknown"

    # A start that was only measured, or post-processed, has been trained on nothing.
    untrained = card.get("role") == "start"
    return Ledger(
        weights=provenance.licence,
        weights_source=provenance.source,
        weights_sha256=provenance.sha256,
        weights_data=provenance.data,
        labels_seen=provenance.labels_seen,
        photos="none" if untrained else told("photos_source"),
        photos_licence="none" if untrained else told("photos_licence"),
    )


def random_provenance(seed: int) -> Provenance:
    """Provenance of a network that has learnt nothing."""
    return Provenance(
        how="random", data="none", licence="none", source=f"drawn, seed {seed}", labels_seen="none"
    )


def provenance_from_metadata(metadata: dict[str, str], source: str, sha256: str) -> Provenance:
    """Read what a weights file says about itself.

    Args:
        metadata: The safetensors header's free text entries. Understood: ``supervision`` (labels,
            self-supervised, text, distilled or random, with more words), ``data``, ``licence`` or
            ``license``, ``labels_seen`` (of a distilled network: its teacher's), ``source``.
        source: File name, used when the metadata names no source.
        sha256: Hash of the file.
    """
    supervision = metadata.get("supervision", "")
    how: How = "distilled" if "distil" in supervision.lower() else _how(supervision)
    inside = re.search(r"\(([^)]*)\)", supervision)
    data = metadata.get("data") or (inside.group(1) if inside else "unknown")
    told = metadata.get("licence") or metadata.get("license")
    found = _LICENCES.search(metadata.get("source", ""))
    seen = metadata.get("labels_seen")
    if seen is None:
        seen = {"supervised": data, "self-supervised": "none", "random": "none"}.get(how, "unknown")
    return Provenance(
        how=how,
        data=data,
        licence=told or (found.group(1) if found else "unknown"),
        source=metadata.get("source", source),
        sha256=sha256,
        labels_seen=seen,
    )


def _how(text: str) -> How:
    text = text.lower()
    if "random" in text:
        return "random"
    if "self" in text or any(name in text for name in _SELF):
        return "self-supervised"
    if any(name in text for name in ("text", "caption", *_TEXT)):
        return "text-supervised"
    if "label" in text or "supervised" in text:
        return "supervised"
    return "unknown"


def provenance_from_tag(tag: str, licence: str | None, source: str, sha256: str) -> Provenance:
    """Guess from timm's naming of pretrained weights, such as ``augreg_in21k_ft_in1k``.

    A tag that was fine-tuned (``ft``) has seen labels whatever came before.
    """
    words = tag.lower().split("_")
    data = [name for key, name in _DATA.items() if any(word.startswith(key) for word in words)]
    how: How = _how(tag)
    if (how in ("self-supervised", "text-supervised") and "ft" in words) or (
        how == "unknown" and data
    ):
        how = "supervised"
    seen = {"supervised": ", ".join(data) or "unknown", "self-supervised": "none"}.get(
        how, "unknown"
    )
    return Provenance(
        how=how,
        data=", ".join(data) or "unknown",
        licence=licence or "unknown",
        source=source,
        sha256=sha256,
        labels_seen=seen,
        notes=("guessed from the weights' name",),
    )
