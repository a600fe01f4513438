"""A recipe: every setting of a run, as data (docs/design.md, rule 6)."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from fieldmark import config as settings
from fieldmark import shipped
from fieldmark.backbones.backbone import BackboneConfig
from fieldmark.config import Config
from fieldmark.data.presets import PRESETS, apply_preset
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.errors import ConfigError
from fieldmark.methods import METHODS
from fieldmark.nn.spec import PostConfig
from fieldmark.training.loop import TrainConfig

NO_TRAINING = "none"
ALIASES = {"moco": "mocov2"}
"""Other names of shipped recipes."""


class ViewsConfig(Config):
    """How views are made, on top of what the method's paper asks for."""

    preset: str = "natural"
    """Domain preset; see docs/recipes.md for what each one switches off and why."""
    override: dict[str, Any] = {}
    """Fields of every view to set after the preset, such as ``{scale = [0.4, 1.0]}``."""

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PRESETS:
            raise ValueError(settings.suggest(value, PRESETS, "preset"))
        return value


class PhotosConfig(Config):
    """Which photos train, and how large they are kept."""

    include_damaged: bool = False
    """Train on photos that decode but miss pixels."""
    short_side: int = Field(default=0, ge=0)
    """Short side in the photo store, pixels; 0: size ÷ √(smallest crop share), at least 2.2 times the
    size, more where a teacher or the label-free yardstick looks larger, less when space is short."""


class HealthConfig(Config):
    """The label-free measures taken every epoch."""

    photos: int = Field(default=512, ge=16)
    """How many photos, at most, are looked at."""
    neighbours: int = Field(default=10, ge=1)
    """Neighbours per photo for the agreement with the start."""
    every_epochs: int = Field(default=1, ge=1)
    """Epochs between two looks."""


class Recipe(Config):
    """Every setting of a run."""

    name: str
    """Name shown in reports."""
    description: str
    """One sentence on what it is for."""
    source: str = ""
    """Paper, section or table the values come from."""
    size: int = Field(default=224, ge=16, le=2048)
    """Input of the network, pixels a side."""
    method_name: str = NO_TRAINING
    """Key of the method table; ``none`` trains nothing."""
    method: SerializeAsAny[Config] | None = None
    """Settings of the method."""
    backbone: BackboneConfig = BackboneConfig()
    """Network, starting weights, normalisation policy, which stages train."""
    views: ViewsConfig = ViewsConfig()
    """Augmentation."""
    photos: PhotosConfig = PhotosConfig()
    """Photo store."""
    train: TrainConfig = TrainConfig()
    """Optimiser, schedule, precision, checkpoints."""
    post: PostConfig = PostConfig()
    """Post-processing that needs no labels; fitted alike for the start and the trained encoder."""
    health: HealthConfig = HealthConfig()
    """Label-free measures."""
    held_out: float = Field(default=0.1, ge=0, le=0.5)
    """Share of photos kept from training where there are no labelled test photos, so that a
    label-free criterion can say what ships (at least 100 photos but no more than a fifth, at most
    500); 0 trains on all, and then the start ships."""
    ship: Literal["best", "trained", "start"] = "best"
    """``best``: the trained encoder where it was shown to help, else the start; without labels,
    where the label-free criterion speaks for it."""

    @model_validator(mode="before")
    @classmethod
    def _read_method(cls, data: Any) -> Any:
        table = data.get("method") if isinstance(data, dict) else None
        if not isinstance(table, dict):
            return data
        table = dict(table)
        name = table.pop("name", NO_TRAINING)
        if name == NO_TRAINING:
            if table:
                raise ConfigError(
                    f"method.name = 'none' takes no settings, got {', '.join(table)}."
                )
            return {**data, "method_name": NO_TRAINING, "method": None}
        if name not in METHODS:
            raise ConfigError(settings.suggest(name, [*METHODS, NO_TRAINING], "method"))
        parsed = METHODS[name].config_type.parse(table, "[method]")
        return {**data, "method_name": name, "method": parsed}

    def dump(self) -> dict[str, Any]:
        """Plain data in the form a recipe file has."""
        data = super().dump()
        data["method"] = {"name": data.pop("method_name"), **data.get("method", {})}
        return data

    @property
    def trains(self) -> bool:
        """Whether this recipe trains at all."""
        return self.method_name != NO_TRAINING

    @property
    def extra_data(self) -> str:
        """What takes part beyond the photos and their start, in words, or ``none``."""
        return METHODS[self.method_name].extra_data(self.method) if self.trains else "none"

    def check(self) -> None:
        """Refuse what the settings name and is not there, such as a teacher.

        Called before anything long is done. Not when a recipe is read: a finished run's is read
        where its teacher need not be.

        Raises:
            FieldmarkError: Says what is missing.
        """
        if self.trains:
            METHODS[self.method_name].check(self.method)

    def multi_view(self) -> MultiView:
        """The views of this recipe's method, after preset and overrides."""
        if not self.trains or self.method is None:
            raise ConfigError(f"recipe '{self.name}' trains nothing, so it has no views.")
        views = METHODS[self.method_name].views(self.method, self.size)
        views = apply_preset(self.views.preset, views)
        if not self.views.override:
            return views
        data = views.dump()
        data["specs"] = [{**spec, **self.views.override} for spec in data["specs"]]
        return MultiView.parse(data, "[views.override]")

    def protect(self, look: ViewSpec) -> ViewSpec:
        """A look at these photos beside training's own views, changing nothing that tells them apart.

        Post-processing and teachers take looks of their own; what the preset switches off, and a
        flip switched off by hand, is off there too.

        Raises:
            ConfigError: The flip set by hand is no probability.
        """
        weakened = apply_preset(self.views.preset, MultiView(specs=(look,))).specs[0]
        flip = self.views.override.get("flip", look.flip)
        asked = ViewSpec.parse({**weakened.dump(), "flip": flip}, "[views.override]")
        return asked.model_copy(update={"flip": min(asked.flip, weakened.flip)})


def available() -> dict[str, Path]:
    """Shipped recipes by name."""
    return shipped.recipes()


def seeded(recipe: Recipe, further: int) -> Recipe:
    """The same recipe with a seed so much further."""
    config = recipe.train.model_copy(update={"seed": recipe.train.seed + further})
    return recipe.model_copy(update={"train": config})


def load_recipe(
    name_or_path: str, sets: Iterable[str] = (), *, extra: dict[str, Any] | None = None
) -> Recipe:
    """Read a recipe and apply what the command line changes.

    Args:
        name_or_path: Name of a shipped recipe (or one of ``ALIASES``) or path of a TOML file. A file may start from a
            shipped one with ``base = "mocov2"``.
        sets: ``a.b=c`` overrides, applied last.
        extra: Settings from other options, applied before ``sets``.

    Raises:
        ConfigError: Unknown recipe, key or value; names the closest valid one.
    """
    data = _read(name_or_path)
    if extra:
        data = settings.merge(data, extra)
    data = settings.apply_sets(data, sets)
    return Recipe.parse(data, f"recipe '{name_or_path}'")


def _read(name_or_path: str) -> dict[str, Any]:
    shipped = available()
    shipped |= {alias: shipped[name] for alias, name in ALIASES.items()}
    path = Path(name_or_path)
    if name_or_path in shipped:
        path = shipped[name_or_path]
    elif path.suffix != ".toml" and not path.is_file():
        raise ConfigError(
            settings.suggest(name_or_path, shipped, "recipe") + " Or give the path of a .toml file."
        )
    data = settings.read_toml(path)
    data.setdefault("name", path.stem)
    base = data.pop("base", None)
    return settings.merge(_read(base), data) if base else data


def from_toml(text: str, source: str) -> Recipe:
    """Read the resolved recipe that a run stored."""
    return Recipe.parse(tomllib.loads(text), source)
