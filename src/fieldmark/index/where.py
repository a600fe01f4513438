"""Filters on an item's label and metadata, the same for every engine.

    label = "wren" and year >= 2020 and (site in ("pond", "wood") or not note is null)

Names are ``key``, ``label``, ``missing`` or a field of the metadata (dots reach into objects; names with
other letters stand in backquotes). Text, numbers, true and false are compared with their own kind only: a
comparison with another kind, or with something that is not there, is false, and its ``not`` true. Text is
compared by code points.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from fieldmark.errors import InputError

Value = str | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


class Compare(NamedTuple):
    """A field against a value."""

    field: str
    operator: Operator
    value: Value


class Within(NamedTuple):
    """A field among values."""

    field: str
    values: tuple[Value, ...]


class Like(NamedTuple):
    """A text field that contains a text, whatever the case of ASCII letters."""

    field: str
    part: str


class Absent(NamedTuple):
    """A field that is not there, or null."""

    field: str


class Not(NamedTuple):
    """The opposite."""

    inner: "Where"


class Both(NamedTuple):
    """``and``."""

    left: "Where"
    right: "Where"


class Either(NamedTuple):
    """``or``."""

    left: "Where"
    right: "Where"


Where = Compare | Within | Like | Absent | Not | Both | Either

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<quoted>`[^`]+`)
    | (?P<name>[^\W\d][\w.:]*)
    | (?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "is", "null", "true", "false", "contains"}
_SIGNS: dict[str, Operator] = {"==": "=", "<>": "!="}
_DEEPEST = 50
RESERVED = ("key", "label", "missing")
"""Names that are no metadata."""


class _Token(NamedTuple):
    kind: str
    value: str
    place: int


def parse(text: str) -> Where:
    """Read a filter.

    Raises:
        InputError: Saying where it stops making sense.
    """
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._tokens = list(self._split(text))

    def _split(self, text: str) -> Any:
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise self._wrong(len(text) - len(text[place:].lstrip()), "cannot be read")
            kind = str(found.lastgroup)
            value, start = found.group(kind), found.start(kind)
            word = value.lower()
            if kind == "name" and word in _WORDS:
                kind, value = "word", word
            yield _Token(kind, value, start)
            place = found.end()

    def _wrong(self, place: int, why: str) -> InputError:
        return InputError(
            f"the filter {self._text!r} {why} at {self._text[place : place + 20]!r} (character {place + 1}); "
            'write it as label = "wren" and year >= 2020, with in ("a", "b"), contains "x", is null, '
            "not, or, and brackets."
        )

    def _next(self) -> _Token:
        if self._at == len(self._tokens):
            return _Token("end", "", len(self._text))
        return self._tokens[self._at]

    def _take(self, *values: str, kind: str | None = None) -> _Token | None:
        token = self._next()
        if (kind and token.kind != kind) or (values and token.value not in values):
            return None
        self._at += 1
        return token

    def whole(self) -> Where:
        found = self._either()
        if self._next().kind != "end":
            raise self._wrong(self._next().place, "goes on unexpectedly")
        return found

    def _either(self) -> Where:
        found = self._both()
        while self._take("or", kind="word"):
            found = Either(found, self._both())
        return found

    def _both(self) -> Where:
        found = self._one()
        while self._take("and", kind="word"):
            found = Both(found, self._one())
        return found

    def _one(self) -> Where:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(self._next().place, f"is nested deeper than {_DEEPEST}")
        try:
            if self._take("not", kind="word"):
                return Not(self._one())
            if self._take("(", kind="sign"):
                inner = self._either()
                if not self._take(")", kind="sign"):
                    raise self._wrong(self._next().place, "lacks a closing bracket")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Where:
        token = self._take(kind="name") or self._take(kind="quoted")
        if token is None:
            raise self._wrong(self._next().place, "lacks the name of a field")
        field = token.value.strip("`")
        if set(field) & set('"\\\0'):
            raise self._wrong(token.place, "names a field with a quote or backslash")
        if self._take("is", kind="word"):
            opposite = self._take("not", kind="word")
            if not self._take("null", kind="word"):
                raise self._wrong(self._next().place, "lacks null after is")
            return Not(Absent(field)) if opposite else Absent(field)
        opposite = self._take("not", kind="word")
        if self._take("in", kind="word"):
            found: Where = Within(field, self._values())
            return Not(found) if opposite else found
        if self._take("contains", kind="word"):
            part = self._value()
            if not isinstance(part, str):
                raise self._wrong(self._next().place, "needs a text after contains")
            return Not(Like(field, part)) if opposite else Like(field, part)
        sign = None if opposite else self._take("=", "==", "!=", "<>", "<", "<=", ">", ">=")
        if sign is None:
            raise self._wrong(self._next().place, f"lacks a comparison after {field}")
        operator: Any = _SIGNS.get(sign.value, sign.value)
        return Compare(field, operator, self._value())

    def _values(self) -> tuple[Value, ...]:
        if not self._take("(", kind="sign"):
            raise self._wrong(self._next().place, "lacks an opening bracket after in")
        values = [self._value()]
        while self._take(",", kind="sign"):
            values.append(self._value())
        if not self._take(")", kind="sign"):
            raise self._wrong(self._next().place, "lacks a closing bracket")
        return tuple(values)

    def _value(self) -> Value:
        if token := self._take(kind="text"):
            return re.sub(r"\\(.)", r"\1", token.value[1:-1], flags=re.DOTALL)
        if token := self._take(kind="number"):
            return float(token.value)
        if token := self._take("true", "false", kind="word"):
            return token.value == "true"
        raise self._wrong(self._next().place, "lacks a value (texts stand in quotes)")


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def holds(where: Where, facts: Mapping[str, Any]) -> bool:
    """What every engine must say of an item: the meaning of a filter in plain Python.

    Args:
        where: From :func:`parse`.
        facts: ``key``, ``label``, ``missing`` and the metadata's own fields.
    """
    if isinstance(where, Both):
        return holds(where.left, facts) and holds(where.right, facts)
    if isinstance(where, Either):
        return holds(where.left, facts) or holds(where.right, facts)
    if isinstance(where, Not):
        return not holds(where.inner, facts)
    value = _reach(facts, where.field)
    if isinstance(where, Absent):
        return value is None
    if isinstance(where, Like):
        return isinstance(value, str) and _fold(where.part) in _fold(value)
    if isinstance(where, Within):
        return any(_alike(value, each) and value == each for each in where.values)
    return _alike(value, where.value) and _HOLDS[where.operator](value, where.value)


def _fold(text: str) -> str:
    """As SQLite's lower(), which knows ASCII only."""
    return "".join(c.lower() if c.isascii() else c for c in text)


def _alike(value: Any, other: Value) -> bool:
    if isinstance(other, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(other, bool)
    return isinstance(value, str) if isinstance(other, str) else isinstance(value, (int, float))


def _reach(facts: Mapping[str, Any], field: str) -> Any:
    if field in RESERVED:
        return facts.get(field)
    value: Any = facts
    for part in field.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value
