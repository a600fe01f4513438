"""What was chosen for an index's labels, kept beside it: a service that starts goes on from there.

CACHE/
└── head.choice    what was chosen, with what it was chosen for and a hash of itself

It holds names of labels and how held-out photos were guessed, but nothing of a photo. A file that is
damaged, or of another encoder or other candidates, is not used; it may be deleted at any time.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fieldmark import storage
from fieldmark.errors import FieldmarkError
from fieldmark.label.heads import CANDIDATES

VERSION = 1
"""Grows when the same photos would give another choice."""


class Choice(NamedTuple):
    """What cross-validation chose, and of what."""

    chosen_on: int
    """Labelled photos."""
    chosen_at: int
    """Number of the last change of a label then."""
    labels: dict[str, int]
    """Photos of each label then."""
    classifier: bytes
    """Of :meth:`fieldmark.label.classifier.FieldClassifier.choice`."""


class Keeper:
    """Keeps the last choice in a file.

    Args:
        folder: Of the cache; made in an index's folder where it is not there.
        identity: Of the encoder of the photos as they are now.
    """

    def __init__(self, folder: Path, identity: Callable[[], str | None]) -> None:
        self._file, self._identity = folder / "head.choice", identity

    def key(self) -> str:
        """What a choice is good for."""
        return f"choice.{VERSION}|{self._identity()}|{', '.join(map(str, CANDIDATES))}"

    def read(self, key: str) -> Choice | None:
        """The last choice; None where there is none that is good."""
        # Whatever is wrong with the file, the choice can be made anew.
        with suppress(Exception):
            head, _, body = self._file.read_bytes().partition(b"\n")
            if json.loads(head) != {"of": key, "sha256": storage.sha256_bytes(body)}:
                return None
            told, _, classifier = body.partition(b"\n")
            return Choice(**json.loads(told), classifier=classifier)
        return None

    def write(self, key: str, choice: Choice) -> None:
        """Keep a choice instead of the last one."""
        told = choice._asdict()
        classifier = told.pop("classifier")
        body = json.dumps(told).encode() + b"\n" + classifier
        head = {"of": key, "sha256": storage.sha256_bytes(body)}
        # A disk that is full, or that may not be written, costs the choice again, no more.
        with suppress(FieldmarkError, OSError):
            if self._file.parent.parent.is_dir():
                storage.make_folder(self._file.parent)
                storage.write_bytes(self._file, json.dumps(head).encode() + b"\n" + body)
