"""From report data to one self-contained HTML file.

Nothing is fetched and nothing foreign can run: the page's content security policy allows only
``data:`` pictures and the very scripts and styles written here, named by their hashes. Every text
that comes from outside (file names, class names, recipes) is escaped by jinja2.
"""

import base64
import datetime
import hashlib
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from fieldmark import storage
from fieldmark.evaluation.report import charts, words
from fieldmark.evaluation.report.data import Measure, NeighbourSheet, ReportData
from fieldmark.evaluation.report.maps import SHAPES, SIDE, draw_map

_PHOTO = re.compile(r"^data:image/(webp|jpeg|png);base64,[A-Za-z0-9+/]+={0,2}$")
_SHOWN_BAD = 12
_LISTED_BAD = 1000
_ORDER = ("map", "rank1", "rank5", "rank10", "map_at_r", "knn", "linear")
"""The measures that decide come first; others keep the caller's order after these."""
_TOP = ("map", "rank1", "rank5", "map_at_r", "knn", "linear")
_ICONS = {"helped": "up", "hurt": "down", "no difference shown": "flat", "not measured": "open"}


def render(data: ReportData, out: Path) -> Path:
    """Write the report.

    Args:
        data: What to say.
        out: The HTML file; replaced as a whole or not at all.

    Returns:
        ``out``.

    Raises:
        OutputError: If the place cannot be written.
        StorageError: If the disk is full.
    """
    storage.write_text(out, page_of(data))
    return out


def page_of(data: ReportData) -> str:
    """The report as HTML text."""
    # What was just measured and what is read back later must give the same page.
    data = ReportData.from_json(data.to_json())
    photos = {photo: uri for photo, uri in sorted(data.photos.items()) if _PHOTO.fullmatch(uri)}
    index = {photo: number for number, photo in enumerate(photos)}
    shown, hidden = _photo_style(data, photos, index)
    drawing = draw_map(data.map, data.confusable, index) if data.map else None
    style, theme, script = (
        Markup(page_text(name)) for name in ("style.css", "theme.js", "report.js")
    )
    policy = security_policy(styles=(style, shown), scripts=(theme, script))
    names = _Names(data)
    before, after = (
        ("Start", "Trained") if data.kind == "train" else ("Plain start", "Post-processed")
    )
    rows = sorted(
        (_measure_row(measure) for measure in data.measures),
        key=lambda row: _ORDER.index(row["name"]) if row["name"] in _ORDER else len(_ORDER),
    )
    forest = [row for row in rows if row["gain"] is not None and row["unit"] == "%"]
    if all(row["low"] is None for row in forest):
        forest = []
    scale = charts.scale_over(
        [
            0.0,
            *(
                row[key]
                for row in forest
                for key in ("gain", "low", "high")
                if row[key] is not None
            ),
        ]
    )
    health = _health(data)
    rates = [rate for pair in data.confusable for rate in (pair.start, pair.trained) if rate]
    shares = [
        value for row in rows if row["unit"] == "%" for value in (row["start"], row["trained"])
    ]
    context = {
        "data": data,
        "policy": policy,
        "style": style,
        "photo_style": shown,
        "theme": theme,
        "script": script,
        "photo_index": index,
        "names": names,
        "before": before,
        "after": after,
        "icon": _ICONS[data.outcome.word],
        "meaning": words.MEANING[data.outcome.word].format(
            before="starting encoder" if data.kind == "train" else "plain start",
            after="trained encoder" if data.kind == "train" else "post-processed start",
        ),
        "decision": words.DECISION,
        "headline": _headline(data),
        "advice": data.advice or words.ADVICE[data.outcome.word],
        "rows": rows,
        "forest": [row for row in forest if row["name"] in _TOP] or forest[:6],
        "stats": [] if forest else _stats(rows, health),
        "measured": any(row["low"] is not None for row in rows),
        "scale": scale,
        "top": _round_up([share for share in shares if share is not None]),
        "rate_top": _round_up(rates),
        "charts": charts,
        "label_curve": _label_curve(rows),
        "health": health,
        "epochs": [row.get("epoch") for row in data.health],
        "sheets": [_sheet(sheet) for sheet in data.sheets],
        "drawing": drawing,
        "map_json": _script_json({**drawing.script, "uris": hidden}) if drawing else Markup(""),
        "map_side": SIDE,
        "shapes": SHAPES,
        "bad_first": data.bad_photos[:_SHOWN_BAD],
        "bad_rest": data.bad_photos[_SHOWN_BAD:_LISTED_BAD],
        "bad_unlisted": max(0, len(data.bad_photos) - _LISTED_BAD),
        "labels_sentence": words.labels_sentence(data.weights.how, data.weights.labels_seen)
        if data.weights
        else "",
        "date": _date(data.started),
        "duration": words.duration(data.run_seconds) if data.run_seconds is not None else "",
    }
    return _environment().get_template("page.html.j2").render(context)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fieldmark.evaluation.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    environment.filters["code"] = _code
    environment.filters["signed"] = charts.signed
    environment.filters["number"] = lambda value: "–" if value is None else charts.number(value)
    environment.filters["fixed"] = lambda value: "–" if value is None else f"{value:.1f}"
    return environment


def _code(text: str) -> Markup:
    """Text in which a pair of backticks sets code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


@cache
def page_text(name: str) -> str:
    """A file that pages are made of."""
    folder = resources.files("fieldmark.evaluation.report").joinpath("page")
    return folder.joinpath(name).read_text(encoding="utf-8")


def security_policy(*, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """A page's content security policy: ``data:`` pictures and these very styles and scripts alone."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {' '.join(map(source_hash, styles))}",
            f"script-src {' '.join(map(source_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def source_hash(text: str) -> str:
    """How a content security policy names a script or style that may be used."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in, whatever names it holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _photo_style(
    data: ReportData, photos: dict[str, str], index: dict[str, int]
) -> tuple[Markup, dict[int, str]]:
    """Photos of the sheets as one CSS class each; photos of the map alone for the script."""
    named = {sheet.photo for sheet in data.sheets}
    named |= {near.photo for sheet in data.sheets for near in (*sheet.start, *sheet.trained)}
    named |= {
        photo for pair in data.confusable for photo in (*pair.photos_first, *pair.photos_second)
    }
    mapped = set(data.map.photos) if data.map else set()
    rules = [
        f".p{index[photo]}{{background-image:url({uri})}}"
        for photo, uri in photos.items()
        if photo in named
    ]
    hidden = {
        index[photo]: uri for photo, uri in photos.items() if photo in mapped and photo not in named
    }
    return Markup("\n".join(rules)), hidden


class _Names:
    """Class names as people write them: ``001.Laysan_Albatross`` reads "Laysan Albatross".

    Only when no two classes become the same by it.
    """

    def __init__(self, data: ReportData) -> None:
        raw = {label for sheet in data.sheets for label in (sheet.label,) if label is not None}
        raw |= {
            near.label
            for sheet in data.sheets
            for near in (*sheet.start, *sheet.trained)
            if near.label is not None
        }
        raw |= {name for pair in data.confusable for name in (pair.first, pair.second)}
        raw |= {label for label in (data.map.labels if data.map else ()) if label is not None}
        tidy = {name: re.sub(r"^\d+[._ -]+", "", name).replace("_", " ").strip() for name in raw}
        distinct = len(set(tidy.values())) == len(raw) and all(tidy.values())
        self._names = tidy if distinct else {name: name for name in raw}

    def __call__(self, name: str | None) -> str:
        return "no label" if name is None else self._names.get(name, name)


def _measure_row(measure: Measure) -> dict[str, Any]:
    fraction = words.fraction_of(measure.name, measure.fraction)
    said = words.wording(measure.name, measure.label, measure.explanation, fraction)
    gain = measure.gain
    if gain is None and measure.start is not None and measure.trained is not None:
        gain = measure.trained - measure.start
    return {
        "name": measure.name,
        "label": said.label,
        "explanation": said.explanation,
        "unit": measure.unit,
        "start": measure.start,
        "trained": measure.trained,
        "gain": gain,
        "gain_words": _gain_words(gain, measure.unit),
        "low": measure.low,
        "high": measure.high,
        "direction": charts.direction(measure.low, measure.high),
        "fraction": fraction,
        "decides": measure.name in {"map", "rank1"},
    }


def _gain_words(gain: float | None, unit: str) -> str:
    if gain is None:
        return "–"
    if unit == "%":
        return charts.signed(gain)
    return ("+" if gain > 0 else "") + charts.number(gain)


def _headline(data: ReportData) -> str:
    subject = "Training" if data.kind == "train" else "Post-processing"
    return {
        "helped": f"{subject} helped.",
        "hurt": f"{subject} hurt.",
        "no difference shown": "No difference shown.",
        "not measured": "Not measured.",
    }[data.outcome.word]


def _label_curve(rows: list[dict[str, Any]]) -> Markup | None:
    probes = sorted(
        (row for row in rows if row["fraction"] and (row["start"], row["trained"]) != (None, None)),
        key=lambda row: row["fraction"],
    )
    if len(probes) < 2:
        return None
    return charts.label_curve(
        [row["fraction"] for row in probes],
        [row["start"] for row in probes],
        [row["trained"] for row in probes],
    )


def _health(data: ReportData) -> list[dict[str, Any]]:
    table = [
        {words.HEALTH_ALIASES.get(key, key): value for key, value in row.items()}
        for row in data.health
    ]
    ranges = {
        words.HEALTH_ALIASES.get(key, key): edges for key, edges in data.health_ranges.items()
    }
    present = {key for row in table for key, value in row.items() if value is not None}
    present.discard("epoch")
    known = [key for key in words.HEALTH if key in present]
    others = sorted(present - set(known))
    epochs = [
        float(index if (epoch := row.get("epoch")) is None else epoch)
        for index, row in enumerate(table)
    ]
    items = []
    for key in (*known, *others):
        curve = words.HEALTH.get(key, words.Curve(key.replace("_", " "), "", "steady"))
        values = [row.get(key) for row in table]
        start = values[0] if epochs[0] == 0 else None
        healthy = charts.healthy_range(curve, start, ranges.get(key))
        if curve.share:
            values = [None if value is None else 100 * value for value in values]
            healthy = charts.HealthRange(*(None if e is None else 100 * e for e in healthy))
        unit = " %" if curve.share else ""
        last = [value for value in values if value is not None][-1]
        items.append(
            {
                "key": key,
                "label": curve.label,
                "unit": unit,
                "explanation": curve.explanation,
                "svg": charts.health_curve(curve.label, epochs, values, healthy, unit),
                "known": healthy.known,
                "healthy": healthy.holds(last),
                "range": _range_words(healthy, unit),
                "values": values,
            }
        )
    return items


def _stats(rows: list[dict[str, Any]], health: list[dict[str, Any]]) -> list[dict[str, str | None]]:
    """Up to three numbers for the top of a page that has no intervals to show."""
    if rows:
        ends = [(row["label"], row["unit"], row["start"], row["trained"]) for row in rows]
    else:
        ends = []
        for item in health:
            known = [value for value in item["values"] if value is not None]
            ends.append((item["label"], item["unit"].strip(), known[0], known[-1]))
    return [
        {
            "label": label,
            "start": None if start is None else charts.number(start),
            "trained": None if trained is None else charts.number(trained),
            "unit": unit,
        }
        for label, unit, start, trained in ends[:3]
    ]


def _round_up(values: list[float]) -> float:
    """End of a percent axis: the largest value, rounded up to a ten."""
    return min(100.0, max(10.0, 10.0 * math.ceil(max(values, default=100.0) / 10)))


def _range_words(healthy: charts.HealthRange, unit: str) -> str:
    low, high = (None if edge is None else charts.number(edge) + unit for edge in healthy)
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else f"{high} or less" if high else ""


def _sheet(sheet: NeighbourSheet) -> dict[str, Any]:
    known = [near.hit for near in (*sheet.start, *sheet.trained) if near.hit is not None]
    start = sum(near.hit is True for near in sheet.start)
    trained = sum(near.hit is True for near in sheet.trained)
    change = ""
    if known and sheet.trained:
        change = "better" if trained > start else "worse" if trained < start else "same"
    return {
        "sheet": sheet,
        "start_hits": start if known else None,
        "trained_hits": trained if known else None,
        "change": change,
    }


def _date(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.day} {moment:%B %Y, %H:%M}"
