"""The end of a run in plain words: verdict, start beside trained, advice, look-alikes that stay hard."""

import base64
import binascii
import hashlib
import html
import re
from typing import NamedTuple

from pydantic import BaseModel

from fieldmark.evaluation.report import ReportData, words
from fieldmark.evaluation.report.render import page_of

_URI = re.compile(r"data:(image/(?:webp|jpeg|png));base64,([A-Za-z0-9+/=\s]+)")
_POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')
_NAMES = {"start": "starting encoder", "trained": "trained encoder"}


class Interval(BaseModel):
    """One measure of the start and of the trained encoder, with the 95 % interval of the gain."""

    name: str
    label: str
    explanation: str
    unit: str
    start: float | None
    trained: float | None
    gain: float | None
    low: float | None
    high: float | None


class HardPair(BaseModel):
    """Two classes that are taken for each other; shares in percent of their photos."""

    first: str
    second: str
    start: float | None
    trained: float | None
    photos_first: list[str]
    """Names of small photos below the run's media address."""
    photos_second: list[str]


class Ending(BaseModel):
    """What a finished run says."""

    title: str
    kind: str
    """``train``; or ``start``: nothing was trained, "trained" is the start with post-processing."""
    verdict: str
    sentence: str
    meaning: str
    decision: str
    """The rule by which the verdict was reached."""
    shipped: str
    """Which encoder is the run's result."""
    measures: list[Interval]
    post_processing: str
    facts: dict[str, int | str | bool | None]
    weights: str
    """What the start already owes to labels."""
    advice: list[str]
    notes: list[str]
    pairs: list[HardPair]
    seconds: float | None


class Page(NamedTuple):
    """The report as one file."""

    text: str
    policy: str
    """Content security policy: only the page's own styles and scripts, by their hashes."""


def ending(data: ReportData) -> Ending:
    """What a report says, for a page of its own."""
    facts = data.facts
    untrained = data.kind == "start"
    before = "start as it is" if untrained else _NAMES["start"]
    after = "start with post-processing" if untrained else _NAMES["trained"]
    word = data.outcome.word
    return Ending(
        title=data.title,
        kind=data.kind,
        verdict=word,
        sentence=data.outcome.sentence,
        meaning=words.MEANING[word].format(before=before, after=after),
        decision=words.DECISION,
        shipped=data.outcome.shipped,
        measures=[
            Interval(
                name=one.name,
                **words.wording(
                    one.name, one.label, one.explanation, words.fraction_of(one.name, one.fraction)
                )._asdict(),
                unit=one.unit,
                start=one.start,
                trained=one.trained,
                gain=_gain(one.start, one.trained, one.gain),
                low=one.low,
                high=one.high,
            )
            for one in data.measures
        ],
        post_processing=data.post_processing,
        facts={
            "photos": facts.photos,
            "train": facts.train,
            "test": facts.test,
            "classes": facts.classes,
            "size": facts.size,
            "transductive": facts.transductive,
        },
        weights=words.labels_sentence(data.weights.how, data.weights.labels_seen)
        if data.weights
        else "",
        advice=list(data.advice or words.ADVICE[word]),
        notes=list(data.notes),
        pairs=[
            HardPair(
                first=pair.first,
                second=pair.second,
                start=pair.start,
                trained=pair.trained,
                photos_first=_names(data, pair.photos_first),
                photos_second=_names(data, pair.photos_second),
            )
            for pair in data.confusable
        ],
        seconds=data.run_seconds,
    )


def small_photos(data: ReportData) -> dict[str, tuple[str, bytes]]:
    """The photos of the pairs: name (from the content) to type and bytes."""
    shown = (
        photo for pair in data.confusable for photo in (*pair.photos_first, *pair.photos_second)
    )
    return {found[0]: found[1:] for photo in shown if (found := _photo(data, photo))}


def report_page(data: ReportData) -> Page:
    """The report, rendered anew from its data: no HTML that lies on the disk is ever served."""
    text = page_of(data)
    found = _POLICY.search(text)
    return Page(text, html.unescape(found[1]) if found else "default-src 'none'")


def _gain(start: float | None, trained: float | None, gain: float | None) -> float | None:
    if gain is not None or start is None or trained is None:
        return gain
    return trained - start


def _names(data: ReportData, photos: tuple[str, ...]) -> list[str]:
    return [found[0] for photo in photos if (found := _photo(data, photo))]


def _photo(data: ReportData, photo: str) -> tuple[str, str, bytes] | None:
    found = _URI.fullmatch(data.photos.get(photo, ""))
    if not found:
        return None
    try:
        content = base64.b64decode(found[2])
    except binascii.Error:
        return None
    return hashlib.sha256(content).hexdigest()[:32], found[1], content
