"""``fieldmark methods``: what can be trained, what it needs and when to take it."""

from typing import Any

from fieldmark import config as settings
from fieldmark.methods import METHODS
from fieldmark.workflows import recipe as recipes


def list_methods() -> list[dict[str, Any]]:
    """Every method with its summary, the recipes that use it and its ablations.

    Returns:
        Plain data, one dictionary each: ``name``, ``idea``, ``needs``, ``when``, ``paper``,
        ``recipes`` (other names of a recipe too), ``ablations`` (variants by study).
    """
    used: dict[str, list[str]] = {name: [] for name in METHODS}
    for recipe, path in recipes.available().items():
        method = settings.read_toml(path).get("method", {}).get("name", recipes.NO_TRAINING)
        names = [recipe, *(alias for alias, real in recipes.ALIASES.items() if real == recipe)]
        used.setdefault(method, []).extend(names)
    return [
        {
            "name": name,
            **method.summary._asdict(),
            "recipes": used[name],
            "ablations": {study: list(variants) for study, variants in method.ablations.items()},
        }
        for name, method in METHODS.items()
    ]
