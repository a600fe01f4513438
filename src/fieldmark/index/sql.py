"""Filters as SQL conditions that mean the same in every engine, values always apart from the text."""

from typing import Any, NamedTuple

from fieldmark.index.where import (
    Absent,
    Both,
    Compare,
    Either,
    Like,
    Not,
    Value,
    Where,
    Within,
)

Sql = tuple[str, list[Any]]


class Dialect(NamedTuple):
    """How a database says it; ``{}`` is where a column or an expression goes."""

    mark: str
    """Where a value goes."""
    never: str
    text: str
    """A text, compared by code points."""
    contains: str
    """Of a text and a mark."""
    kind: str
    """Kind of a metadata field, by its path."""
    kinds: tuple[str, str, str]
    """Of texts, numbers, and true and false."""
    values: tuple[str, str, str]
    """A field's value by its path, of those kinds."""

    def path(self, field: str) -> Any:
        """Way to a field of the metadata."""
        parts = field.split(".")
        return "$" + "".join(f'."{part}"' for part in parts) if self.mark == "?" else parts


SQLITE = Dialect(
    "?",
    "0",
    "{}",
    "instr(lower({}), lower(?)) > 0",
    "coalesce(json_type(items.meta, ?), 'null')",
    ("'text'", "'integer', 'real'", "'true', 'false'"),
    ("json_extract(items.meta, ?)",) * 3,
)
POSTGRES = Dialect(
    "%s",
    "false",
    '{} COLLATE "C"',
    'strpos(lower({} COLLATE "C"), lower(%s::text COLLATE "C")) > 0',
    "coalesce(jsonb_typeof(items.meta #> %s), 'null')",
    ("'string'", "'number'", "'boolean'"),
    ("(items.meta #>> %s)", "(items.meta #>> %s)::numeric", "(items.meta #>> %s)::boolean"),
)


def condition(where: Where, dialect: Dialect) -> Sql:
    """A condition on ``items`` that is true or false, never null, and the values of its marks."""
    if isinstance(where, Not):
        inner, values = condition(where.inner, dialect)
        return f"(NOT {inner})", values
    if isinstance(where, (Both, Either)):
        left, before = condition(where.left, dialect)
        right, after = condition(where.right, dialect)
        word = "AND" if isinstance(where, Both) else "OR"
        return f"({left} {word} {right})", before + after
    if isinstance(where, Within):
        parts = [condition(Compare(where.field, "=", value), dialect) for value in where.values]
        return f"({' OR '.join(text for text, _ in parts)})", [v for _, vs in parts for v in vs]
    if where.field in {"key", "label"}:
        return _text(where, f"items.{where.field}", dialect)
    if where.field == "missing":
        return _missing(where, dialect)
    return _meta(where, dialect)


def _text(where: Compare | Like | Absent, column: str, dialect: Dialect) -> Sql:
    if isinstance(where, Absent):
        return f"({column} IS NULL)", []
    if isinstance(where, Like):
        return f"({column} IS NOT NULL AND {dialect.contains.format(column)})", [where.part]
    if not isinstance(where.value, str):
        return dialect.never, []
    shown = dialect.text.format(column)
    test = f"{shown} {where.operator} {dialect.mark}"
    return f"({column} IS NOT NULL AND {test})", [where.value]


def _missing(where: Compare | Like | Absent, dialect: Dialect) -> Sql:
    if not isinstance(where, Compare) or not isinstance(where.value, bool):
        return dialect.never, []
    return f"(items.missing {where.operator} {dialect.mark})", [where.value]


def _meta(where: Compare | Like | Absent, dialect: Dialect) -> Sql:
    path = dialect.path(where.field)
    if isinstance(where, Absent):
        return f"({dialect.kind} = 'null')", [path]
    texts, value = dialect.kinds[0], dialect.values[0]
    if isinstance(where, Like):
        test, values = dialect.contains.format(value), [path, where.part]
    else:
        place = _place(where.value)
        texts, value = dialect.kinds[place], dialect.values[place]
        shown = dialect.text.format(value) if place == 0 else value
        test, values = f"{shown} {where.operator} {dialect.mark}", [path, where.value]
    # A case, for databases may look at the second half of an AND first, and a text is no number.
    return (
        f"(CASE WHEN {dialect.kind} IN ({texts}) THEN {test} ELSE {dialect.never} END)",
        [path, *values],
    )


def _place(value: Value) -> int:
    return 2 if isinstance(value, bool) else 0 if isinstance(value, str) else 1
