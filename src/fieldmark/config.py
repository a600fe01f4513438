"""Config is data: frozen models, unknown keys refused, TOML in and out (docs/design.md, rule 6)."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from fieldmark.errors import ConfigError

T = TypeVar("T", bound="Config")


class Config(BaseModel):
    """Base of every component's settings.

    Fields carry their unit and meaning as a docstring below them; those sentences become
    docs/config.md.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    @classmethod
    def parse(cls: type[T], data: dict[str, Any], source: str) -> T:
        """Validate plain data.

        Args:
            data: Nested dictionary as read from TOML or JSON.
            source: Where it came from, for the error text.

        Raises:
            ConfigError: Naming the key, the value, what is allowed, and the closest valid key.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(_explain(cls, error, source)) from None

    def dump(self) -> dict[str, Any]:
        """Plain data without None values, as TOML has no null."""
        return self.model_dump(mode="json", exclude_none=True)


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return sorted(getattr(current, "model_fields", {}))


def _explain(model: type[BaseModel], error: ValidationError, source: str) -> str:
    sentences = []
    for item in error.errors():
        location = item["loc"]
        key = ".".join(str(part) for part in location) or "(whole)"
        if item["type"] == "extra_forbidden":
            valid = _fields_at(model, location[:-1])
            close = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.4)
            hint = f"did you mean '{close[0]}'?" if close else ""
            sentences.append(
                f"unknown key '{key}' in {source}; {hint} allowed here: {', '.join(valid)}."
            )
        elif item["type"] == "missing":
            sentences.append(f"{key} is required in {source}.")
        else:
            message = item["msg"].removeprefix("Value error, ")
            sentences.append(f"{key} in {source}: {message}, got {item.get('input')!r}.")
    return " ".join(sentences)


def suggest(value: str, allowed: Iterable[str], what: str) -> str:
    """Say that a name is unknown, which is closest, and what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.4)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return f"unknown {what} '{value}';{hint} allowed: {', '.join(names)}."


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: If the file is missing, is not UTF-8 or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such recipe or configuration file: {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from None


def to_toml(config: Config) -> str:
    """Write resolved settings as TOML."""
    return tomli_w.dumps(config.dump())


def apply_sets(data: dict[str, Any], sets: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` overrides; values are TOML (``true``, ``3``, ``[1, 2]``), else plain text.

    Raises:
        ConfigError: If an item has no ``=`` or goes through a value that is not a table.
    """
    result = merge({}, data)
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ConfigError(
                f"--set takes key=value such as method.temperature=0.1, got '{item}'."
            )
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        *parents, last = name.strip().split(".")
        table = result
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {item}: '{parent}' is a value, not a table of settings.")
        table[last] = value
    return result


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep-merge two tables; values of ``over`` win. Neither argument is changed."""
    result = {
        key: merge({}, value) if isinstance(value, dict) else value for key, value in base.items()
    }
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = merge({}, value) if isinstance(value, dict) else value
    return result
