"""Files that fieldmark ships beside its code: recipes, banks of texts, published figures."""

from pathlib import Path


def folder() -> Path:
    """Where the shipped recipes are: inside the package, or beside it in a source tree."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def recipes() -> dict[str, Path]:
    """Shipped recipes by name."""
    return {path.stem: path for path in sorted(folder().glob("*.toml"))}


def texts() -> dict[str, Path]:
    """Shipped banks of texts by name."""
    return {path.stem: path for path in sorted((folder() / "texts").glob("*.toml"))}


def published() -> Path:
    """Figures that others published."""
    inside = Path(__file__).parent / "published.toml"
    return inside if inside.is_file() else Path(__file__).parents[2] / "benchmarks/published.toml"
