"""Stopping when asked: after the step, with everything saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fieldmark.errors import Interrupted


class Wish:
    """Whether someone asked to stop."""

    number = 0
    """The signal that was heard; 0 for none."""


@contextmanager
def listening() -> Iterator[Wish]:
    """Turn the first SIGINT or SIGTERM into a wish; a second one acts at once.

    Outside the main thread signals cannot be heard, and the wish stays 0.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def heard(number: int, frame: Any) -> None:
        wish.number = number
        for kind in kinds:
            signal.signal(kind, before[kind])

    for kind in kinds:
        signal.signal(kind, heard)
    try:
        yield wish
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


def interrupted(number: int, step: int) -> Interrupted:
    """The error that ends a run on request, with the exit code shells expect: 128 + signal."""
    error = Interrupted(
        f"stopped after step {step}; everything is saved. Run the same command again to go on."
    )
    error.exit_code = 128 + number
    return error


def interrupted_before(number: int, what: str, done: int, total: int) -> Interrupted:
    """The same where a preparation is cut short, which is not saved half done."""
    error = Interrupted(
        f"stopped while {what} ({done} of {total} photos); nothing is lost but this part. Run the "
        "same command again: it begins this part anew."
    )
    error.exit_code = 128 + number
    return error
