"""Banks of texts: one that describes what matters in a photo, others that describe what does not.

PP-SSL compares every crop with such texts, so that the encoder learns which parts of a photo show
the kind of thing that is told apart (arXiv:2412.00134, section on auxiliary image semantics). No
text names a species, a brand or a model: the bank says *bird*, never *which* bird.
"""

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from fieldmark import config as settings
from fieldmark import shipped
from fieldmark.config import Config
from fieldmark.errors import ConfigError

Kind = Literal["fine", "coarse"]
MOST_TEXTS = 16
"""Most texts of one kind in a bank, the relevant one included."""


class TextBank(Config):
    """Texts for one kind of photo, in two degrees of detail."""

    description: str
    """One sentence on which photos the bank is for."""
    relevant: str
    """What the photos show, as "a bird characterised by feathers, two wings and a bill"."""
    irrelevant: tuple[str, ...]
    """What they do not show, most useful first, 1 to 15 texts; the paper uses seven."""
    coarse_relevant: str | None = None
    """The relevant text in two or three words, as "a bird"."""
    coarse_irrelevant: tuple[str, ...] = ()
    """The irrelevant texts in two or three words, in the same order."""

    @field_validator("description", "relevant", "coarse_relevant")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must say something; write a short description")
        return value

    @field_validator("irrelevant", "coarse_irrelevant")
    @classmethod
    def _all_say_something(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if any(not value.strip() for value in values):
            raise ValueError("holds an empty text; fill it in or remove it")
        if len(values) >= MOST_TEXTS:
            raise ValueError(f"at most {MOST_TEXTS - 1} texts are allowed; remove the least useful")
        return values

    @model_validator(mode="after")
    def _check_lists(self) -> "TextBank":
        if not self.irrelevant:
            raise ValueError("irrelevant needs at least one text that the photos do not show")
        if (self.coarse_relevant is None) != (not self.coarse_irrelevant):
            raise ValueError(
                "coarse_relevant and coarse_irrelevant are given together or not at all"
            )
        for kind in ("fine", "coarse"):
            seen: set[str] = set()
            for text in self._all(kind):
                same = " ".join(text.lower().split())
                if same in seen:
                    raise ValueError(
                        f"the {kind} text '{text}' is there twice; keep one of the two"
                    )
                seen.add(same)
        return self

    def _all(self, kind: str) -> list[str]:
        if kind == "fine":
            return [self.relevant, *self.irrelevant]
        return (
            [] if self.coarse_relevant is None else [self.coarse_relevant, *self.coarse_irrelevant]
        )

    def available(self, kind: Kind = "fine") -> int:
        """How many texts of a kind there are, the relevant one included."""
        return len(self._all(kind))

    def select(self, count: int, kind: Kind = "fine") -> list[str]:
        """Take the first texts of a kind.

        Args:
            count: How many, 1 to :meth:`available`.
            kind: ``fine``: descriptions. ``coarse``: the bare names.

        Returns:
            The relevant text first, then ``count`` - 1 irrelevant ones.

        Raises:
            ConfigError: If the bank holds fewer texts of that kind.

        Example:
            >>> text_bank("birds").select(3, "coarse")
            ['a bird', 'a dog', 'a bus']
        """
        texts = self._all(kind)
        if not texts:
            raise ConfigError(
                f"this bank of texts ({self.description}) has no {kind} texts, got kind = "
                f"'{kind}'; 'fine' is available. Add coarse_relevant and coarse_irrelevant to it."
            )
        if not 1 <= count <= len(texts):
            raise ConfigError(
                f"the number of {kind} texts must be 1 to {len(texts)} with this bank "
                f"({self.description}), got {count}; add irrelevant texts to a bank of your own, "
                "or ask for fewer."
            )
        return texts[:count]

    @classmethod
    def read(cls, path: Path) -> "TextBank":
        """Read a bank from a TOML file.

        Raises:
            ConfigError: If the file is missing, is not TOML or breaks a rule; names the key.
        """
        if not path.is_file():
            raise ConfigError(
                f"no such file of texts: {path}; give the path of a .toml file or one of: "
                f"{', '.join(shipped.texts())}."
            )
        return cls.parse(settings.read_toml(path), f"the bank of texts {path.name}")


def text_bank(name_or_path: str) -> TextBank:
    """Read a bank of texts by its shipped name or its path.

    Args:
        name_or_path: Such as ``birds``, or the path of a TOML file.

    Raises:
        ConfigError: If there is no such bank, or it breaks a rule; names the closest one.

    Example:
        >>> text_bank("birds").available()
        16
    """
    banks = shipped.texts()
    if name_or_path in banks:
        return TextBank.read(banks[name_or_path])
    path = Path(name_or_path).expanduser()
    if path.suffix != ".toml" and not path.is_file():
        raise ConfigError(
            settings.suggest(name_or_path, banks, "bank of texts")
            + " Or give the path of a .toml file of your own."
        )
    return TextBank.read(path)
