"""What a domain switches off in a method's views, and why.

A view teaches the encoder to ignore whatever it changes. Where the changed thing is the field mark
itself, as plumage colour is for birds, the view must leave it alone. Presets only ever weaken what
a method's paper asks for; they never add anything.
"""

from typing import NamedTuple

from fieldmark.config import suggest
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.errors import ConfigError


class Change(NamedTuple):
    """One thing that a preset weakens."""

    field: str
    """Field of :class:`~fieldmark.data.sampling.ViewSpec`."""
    limit: float | tuple[float, float]
    """Largest value allowed; for a pair of values, the range they must stay in."""
    reason: str


class Preset(NamedTuple):
    """A domain's changes to views."""

    summary: str
    """Which photos it is for."""
    changes: tuple[Change, ...]

    def describe(self) -> str:
        """What is switched off and why, one line each."""
        lines = [f"{_say(change)}: {change.reason}" for change in self.changes]
        return "\n".join([self.summary, *lines])


_SMALL_PRINT = "blurred small print reads the same on every variant"

PRESETS: dict[str, Preset] = {
    "natural": Preset("Any photos; the method's views as its paper has them.", ()),
    "plumage": Preset(
        "Birds, butterflies, fish, flowers: colour patterns tell the classes apart.",
        (
            Change("hue", 0.0, "a shifted hue turns one species into another"),
            Change("gray", 0.0, "without colour many look-alikes are the same bird"),
            Change("saturation", 0.2, "pale and vivid forms are often different species"),
            Change("solarize", 0.0, "inverted tones turn light marks into dark ones"),
        ),
    ),
    "vehicle": Preset(
        "Cars, aircraft, ships: one model comes in many paints, so colour may change freely.",
        (
            Change("blur", 0.2, "badges, grilles and window lines are small and tell models apart"),
            Change("blur_sigma", (0.1, 1.0), "a wide blur removes them altogether"),
            Change("ratio", (0.85, 1.18), "stretching turns a saloon into an estate"),
            Change("solarize", 0.0, "inverted tones hide lamps and window outlines"),
        ),
    ),
    "product": Preset(
        "Packaged goods and branded things: print and colour name the variant.",
        (
            Change("flip", 0.0, "mirrored text and logos do not exist"),
            Change("hue", 0.0, "flavours and variants differ by the colour of the pack"),
            Change("gray", 0.0, "flavours and variants differ by the colour of the pack"),
            Change("saturation", 0.2, "flavours and variants differ by the colour of the pack"),
            Change("blur", 0.2, _SMALL_PRINT),
            Change("blur_sigma", (0.1, 1.0), _SMALL_PRINT),
            Change("solarize", 0.0, "no pack looks like its negative"),
        ),
    ),
    "part": Preset(
        "Machine parts, fittings, tools: shape, proportion and finish tell them apart.",
        (
            Change("flip", 0.0, "a left-hand part is not a right-hand part"),
            Change("ratio", (1.0, 1.0), "stretching changes proportions, and so the part number"),
            Change("scale", (0.4, 1.0), "a small crop hides how large one feature is to the next"),
            Change("hue", 0.02, "brass and steel differ by hue"),
            Change("gray", 0.0, "brass and steel differ by hue"),
            Change("solarize", 0.0, "inverted highlights turn a boss into a bore"),
        ),
    ),
}


def _say(change: Change) -> str:
    if isinstance(change.limit, tuple):
        return f"{change.field} within {change.limit[0]:g} to {change.limit[1]:g}"
    return (
        f"{change.field} off" if change.limit == 0 else f"{change.field} at most {change.limit:g}"
    )


def apply_preset(name: str, multi_view: MultiView) -> MultiView:
    """Weaken views for a domain.

    Args:
        name: Key of :data:`PRESETS`.
        multi_view: Views as the method asks for them.

    Raises:
        ConfigError: If there is no such preset.

    Example:
        >>> views = MultiView(specs=(ViewSpec(size=128),))
        >>> apply_preset("plumage", views).specs[0].gray
        0.0
    """
    if name not in PRESETS:
        raise ConfigError(suggest(name, PRESETS, "preset"))
    limits = [c.limit[0] for c in PRESETS[name].changes if c.field == "scale"]  # type: ignore[index]
    return MultiView(
        specs=tuple(_weaken(spec, PRESETS[name]) for spec in multi_view.specs),
        least_scale=max([multi_view.least_scale, *limits]),
    )


def _weaken(spec: ViewSpec, preset: Preset) -> ViewSpec:
    values = spec.model_dump()
    for change in preset.changes:
        value, limit = values[change.field], change.limit
        if isinstance(limit, tuple):
            low, high = limit
            # A range outside the limits collapses onto the nearer one.
            values[change.field] = tuple(min(max(end, low), high) for end in value)
        else:
            values[change.field] = min(value, limit)
    return ViewSpec(**values)
