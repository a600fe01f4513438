"""Every error fieldmark raises on purpose.

FieldmarkError                 exit code 1: something failed while running
├── InputError                 exit code 2: what the user gave cannot be used
│   ├── ConfigError            recipe, option or --set value
│   ├── CatalogError           photo folder, table or shard
│   ├── PhotoError             one photo (carries a code from a closed list)
│   ├── LabelError             split or label table
│   ├── WeightsError           starting weights
│   ├── ArtifactError          encoder folder or run folder
│   ├── OutputError            where results should go
│   │   └── BusyError          another process works there
│   ├── ConflictError          someone else changed it meanwhile
│   └── MissingExtraError      an optional package is needed
├── StorageError               disk full, read-only, changed while writing
└── TrainingError              the run cannot go on
    ├── NonFiniteError         NaN or infinity in loss or gradient
    └── CollapseError          features no longer differ between photos
Interrupted                    exit code 130: stopped by the user, state saved

An error text is one paragraph: what is wrong, the value, what is allowed, what to do.
"""


class FieldmarkError(Exception):
    """Base of all errors raised on purpose; the command line prints its text without a traceback."""

    exit_code = 1


class InputError(FieldmarkError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A recipe, option or ``--set`` value is wrong."""


class CatalogError(InputError):
    """A photo folder, table or shard cannot be used."""


class PhotoError(InputError):
    """One photo cannot be used.

    Attributes:
        code: Machine-readable reason from the closed list in ``fieldmark.data.decode.CODES``.
        detail: The reason in words.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[str, str]]:
        # Exceptions cross process boundaries; the default only keeps args.
        return (PhotoError, (self.code, self.detail))


class LabelError(InputError):
    """A split or label table cannot be used."""


class WeightsError(InputError):
    """Starting weights cannot be used."""


class ArtifactError(InputError):
    """An encoder or run folder cannot be used."""


class OutputError(InputError):
    """Results cannot be written where the user asked."""


class BusyError(OutputError):
    """Another process works on the same folder."""


class ConflictError(InputError):
    """What should be changed was changed by someone else meanwhile.

    Attributes:
        keys: What.
    """

    def __init__(self, text: str, keys: list[str]) -> None:
        super().__init__(text)
        self.keys = keys


class MissingExtraError(InputError):
    """An optional package is needed.

    Args:
        package: Name to import.
        extra: Name of the fieldmark extra that installs it.
        purpose: What it is needed for, as "to write Parquet".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"the package '{package}' is needed {purpose} and is not installed; "
            f"install it with: pip install 'fieldmark[{extra}]'"
        )


class StorageError(FieldmarkError):
    """Writing failed: disk full, read-only file system, I/O error."""


class TrainingError(FieldmarkError):
    """The run cannot go on."""


class NonFiniteError(TrainingError):
    """NaN or infinity in the loss or a gradient."""


class CollapseError(TrainingError):
    """Features no longer differ between photos."""


class Interrupted(FieldmarkError):
    """Stopped by the user after the current step; everything is saved."""

    exit_code = 130
