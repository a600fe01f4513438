"""Charts as inline SVG, made by hand so that they need no script, no font and no network.

Bars that span a table row place everything in percent of their width, so they stretch without
distortion; curves use a view box near the size they are shown at, so text stays readable on a
phone. Every text passes through ``Markup.format``, which escapes it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from fieldmark.evaluation.report.words import Curve


class Scale(NamedTuple):
    """Maps values to positions; ``ticks`` are round values inside."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> str:
        """Position in percent of the width."""
        return f"{100 * self.share(value):.2f}%"

    def share(self, value: float) -> float:
        """Position in [0, 1]."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def scale_over(values: Sequence[float], *, count: int = 5, pad: float = 0.08) -> Scale:
    """A scale that holds all values with a little air, and its round ticks."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        air = max(abs(high) * 0.05, 1e-3)
        low, high = low - air, high + air
    air = (high - low) * pad
    low, high = low - air, high + air
    return Scale(low, high, _ticks(low, high, count))


def _ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= rough * 0.999)
    first = math.ceil(low / step)
    last = math.floor(high / step)
    return tuple(round(index * step, 10) for index in range(first, last + 1))


def direction(low: float | None, high: float | None) -> str:
    """``up`` when the interval lies above zero, ``down`` below, ``flat`` when it holds zero."""
    if low is not None and low > 0:
        return "up"
    if high is not None and high < 0:
        return "down"
    return "flat" if low is not None and high is not None else "open"


_DIAMOND = Markup('<path d="M0-7 7 0 0 7-7 0Z"/>')


def forest_row(scale: Scale, gain: float, low: float | None, high: float | None) -> Markup:
    """Gain (diamond) and 95 % interval (bar) against the zero line."""
    kind = direction(low, high)
    parts = [
        Markup('<svg class="forest {}" width="100%" height="34" aria-hidden="true">').format(kind)
    ]
    parts += [
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="34"/>').format(scale.percent(tick))
        for tick in scale.ticks
        if tick
    ]
    parts.append(
        Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="34"/>').format(scale.percent(0.0))
    )
    if low is not None and high is not None:
        width = max(0.3, 100 * (scale.share(high) - scale.share(low)))
        parts.append(
            Markup(
                '<rect class="band" x="{0}" width="{1}%" y="12" height="10" rx="5"/>'
                '<line class="cap" x1="{0}" x2="{0}" y1="10" y2="24"/>'
                '<line class="cap" x1="{2}" x2="{2}" y1="10" y2="24"/>'
            ).format(scale.percent(low), f"{width:.2f}", scale.percent(high))
        )
    parts.append(
        Markup('<svg class="mark" x="{}" y="17" overflow="visible">{}</svg></svg>').format(
            scale.percent(gain), _DIAMOND
        )
    )
    return Markup("").join(parts)


def forest_axis(scale: Scale) -> Markup:
    """Tick labels under the forest rows."""
    labels = Markup("").join(
        Markup('<text x="{}" y="14" text-anchor="{}">{}</text>').format(
            scale.percent(tick), _anchor(scale.share(tick)), signed(tick, 0 if _whole(scale) else 1)
        )
        for tick in scale.ticks
    )
    return Markup('<svg class="axis" width="100%" height="20" aria-hidden="true">{}</svg>').format(
        labels
    )


def _whole(scale: Scale) -> bool:
    return all(float(tick).is_integer() for tick in scale.ticks)


def _anchor(share: float) -> str:
    return "start" if share < 0.04 else "end" if share > 0.96 else "middle"


def dumbbell(start: float | None, trained: float | None, top: float = 100.0) -> Markup:
    """Start (ring) and trained (disc) on a line from 0 to ``top``."""
    scale = Scale(0.0, top, ())
    parts = [
        Markup('<svg class="dumbbell" width="100%" height="22" aria-hidden="true">'),
        Markup('<line class="rail" x1="0" x2="100%" y1="11" y2="11"/>'),
    ]
    if start is not None and trained is not None:
        parts.append(
            Markup('<line class="way" x1="{}" x2="{}" y1="11" y2="11"/>').format(
                scale.percent(start), scale.percent(trained)
            )
        )
    if trained is not None:
        parts.append(
            Markup('<circle class="trained" cx="{}" cy="11" r="6"/>').format(scale.percent(trained))
        )
    if start is not None:
        parts.append(
            Markup('<circle class="start" cx="{}" cy="11" r="5"/>').format(scale.percent(start))
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def label_curve(
    fractions: Sequence[float], start: Sequence[float | None], trained: Sequence[float | None]
) -> Markup:
    """Accuracy of the linear probe against the share of labels (log axis)."""
    width, height, left, right, top, bottom = 420, 260, 34, 62, 14, 38
    known = [value for value in (*start, *trained) if value is not None]
    y = scale_over(known, count=4)
    logs = [math.log(fraction) for fraction in fractions]
    span = (max(logs) - min(logs)) or 1.0

    def place(fraction: float, value: float) -> tuple[float, float]:
        x = left + (width - left - right) * (math.log(fraction) - min(logs)) / span
        return x, top + (height - top - bottom) * (1 - y.share(value))

    parts = [
        Markup(
            '<svg class="curve labels" viewBox="0 0 {} {}" role="img" '
            'aria-label="Linear probe accuracy against share of labels; numbers in the table">'
        ).format(width, height)
    ]
    for tick in y.ticks:
        level = place(fractions[0], tick)[1]
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(left, width - right, level, left - 6, level + 4, f"{tick:g}")
        )
    for fraction in fractions:
        x = place(fraction, known[0])[0]
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{} %</text>').format(
                x, height - bottom + 18, f"{100 * fraction:g}"
            )
        )
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">labels used</text>').format(
            (left + width - right) / 2, height - 4
        )
    )
    ends: dict[str, tuple[float, float]] = {}
    for name, values in (("start", start), ("trained", trained)):
        points = [
            place(fraction, value)
            for fraction, value in zip(fractions, values, strict=True)
            if value is not None
        ]
        if not points:
            continue
        parts.append(_polyline(points, name))
        radius = 5 if name == "trained" else 4.5
        parts += [
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
                name, *point, radius
            )
            for point in points
        ]
        ends[name] = points[-1]
    # Two direct labels must not sit on each other.
    if len(ends) == 2 and abs(ends["start"][1] - ends["trained"][1]) < 14:
        middle = (ends["start"][1] + ends["trained"][1]) / 2
        sign = 1 if ends["start"][1] >= ends["trained"][1] else -1
        ends = {
            "start": (ends["start"][0], middle + 7 * sign),
            "trained": (ends["trained"][0], middle - 7 * sign),
        }
    parts += [
        Markup('<text class="end {0}" x="{1:.1f}" y="{2:.1f}">{0}</text>').format(
            name, x + 10, level + 4
        )
        for name, (x, level) in ends.items()
    ]
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _polyline(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline class="line {}" points="{}"/>').format(kind, text)


class HealthRange(NamedTuple):
    """Where a curve is healthy; None means no limit on that side."""

    low: float | None
    high: float | None

    @property
    def known(self) -> bool:
        """Whether there is any limit."""
        return self.low is not None or self.high is not None

    def holds(self, value: float) -> bool:
        """Whether a value lies inside."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def healthy_range(
    curve: Curve, start: float | None, given: tuple[float | None, float | None] | None
) -> HealthRange:
    """The caller's range, else the rule of thumb applied to the start's value."""
    if given is not None:
        return HealthRange(*given)
    low, high = curve.absolute_low, None
    if start is not None and start > 0:
        low = start * curve.low if curve.low is not None else low
        high = start * curve.high if curve.high is not None else high
    return HealthRange(low, high)


def health_curve(
    label: str,
    epochs: Sequence[float],
    values: Sequence[float | None],
    healthy: HealthRange,
    unit: str = "",
) -> Markup:
    """One small curve with its healthy band shaded and its first and last values written out."""
    width, height, left, right, top, bottom = 320, 150, 10, 12, 20, 36
    known = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None]
    levels = [value for _, value in known]
    # The band's edges belong in the picture only when they are near the curve.
    spread = max(levels) - min(levels) or max(abs(levels[0]) * 0.1, 1e-3)
    edges = [
        edge
        for edge in (healthy.low, healthy.high)
        if edge is not None and min(levels) - 1.5 * spread <= edge <= max(levels) + 1.5 * spread
    ]
    y = scale_over([*levels, *edges], pad=0.1)
    first, last = epochs[0], epochs[-1]
    span = (last - first) or 1.0

    def place(epoch: float, value: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * (epoch - first) / span,
            top + (height - top - bottom) * (1 - y.share(value)),
        )

    parts = [
        Markup(
            '<svg class="curve health" viewBox="0 0 {} {}" role="img" tabindex="0" '
            'aria-label="{}: {} at epoch {}, {} at epoch {}. Arrow keys step through the epochs.">'
        ).format(
            width,
            height,
            label,
            number(levels[0]) + unit,
            f"{known[0][0]:g}",
            number(levels[-1]) + unit,
            f"{known[-1][0]:g}",
        )
    ]
    if healthy.known:
        upper = place(first, y.high if healthy.high is None else healthy.high)[1]
        lower = place(first, y.low if healthy.low is None else healthy.low)[1]
        parts.append(
            Markup('<rect class="healthy" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>').format(
                left, upper, width - left - right, max(0.0, lower - upper)
            )
        )
        parts += [
            Markup('<line class="edge" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>').format(
                left, width - right, place(first, edge)[1]
            )
            for edge in edges
        ]
    if known[0][0] == 0:
        parts.append(
            Markup('<line class="base" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>').format(
                left, width - right, place(first, levels[0])[1]
            )
        )
    points = [place(*pair) for pair in known]
    parts.append(_polyline(points, "trained"))
    parts += [
        Markup(
            '<circle class="dot{}" cx="{:.1f}" cy="{:.1f}" r="{}" data-e="{}" data-v="{}"/>'
        ).format(
            " out" if not healthy.holds(value) else "",
            x,
            level,
            3 if len(points) <= 40 else 1.5,
            f"{epoch:g}",
            number(value) + unit,
        )
        for (x, level), (epoch, value) in zip(points, known, strict=True)
    ]
    # Each end's value stands on the side that the curve leaves free.
    ends = [(points[0], levels[0], "start", levels[1:2])]
    ends += [(points[-1], levels[-1], "end", levels[-2:-1])] if len(points) > 1 else []
    for (x, level), value, anchor, beside in ends:
        above = not beside or beside[0] <= value
        parts.append(
            Markup('<text class="value" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                x - 3 if anchor == "start" else x + 3,
                level - 9 if above else level + 18,
                anchor,
                number(value) + unit,
            )
        )
    parts.append(
        Markup(
            '<text class="tick" x="{}" y="{}">{}</text>'
            '<text class="tick" x="{}" y="{}" text-anchor="end">epoch {}</text></svg>'
        ).format(
            left,
            height - 6,
            "start" if first == 0 else f"epoch {first:g}",
            width - right,
            height - 6,
            f"{last:g}",
        )
    )
    return Markup("").join(parts)


def number(value: float) -> str:
    """Three significant digits, never scientific for everyday sizes."""
    if not math.isfinite(value):
        return "–"
    if abs(value) < 1e-6:  # rounding noise of float32, as in one minus a cosine
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    if -3 <= 2 - digits <= 6:
        return f"{value:.{max(0, min(5, digits))}f}".replace("-", "−")
    return f"{value:.2g}".replace("-", "−")


def signed(value: float, digits: int = 1) -> str:
    """With its sign always, and a true minus; zero has none."""
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return f"{0:.{digits}f}"
    return text.replace("-", "−")
