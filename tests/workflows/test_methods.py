from typer.testing import CliRunner

from fieldmark.cli.app import app
from fieldmark.config import merge
from fieldmark.methods import METHODS
from fieldmark.workflows.methods import list_methods
from fieldmark.workflows.recipe import ALIASES, Recipe, available, load_recipe


def test_every_method_is_listed_with_the_recipes_that_use_it():
    found = {method["name"]: method for method in list_methods()}
    assert list(found) == list(METHODS)
    for name in available():
        recipe = load_recipe(name)
        if recipe.trains:
            assert name in found[recipe.method_name]["recipes"]
    assert {"mocov2", "moco"} <= set(found["mocov2"]["recipes"])
    for method in found.values():
        assert {"idea", "needs", "when", "paper", "recipes", "ablations"} < set(method)


def test_aliases_are_names_of_shipped_recipes():
    assert set(ALIASES.values()) <= set(available())
    assert not set(ALIASES) & set(available())


def test_variants_of_ablations_are_settings_that_recipes_have():
    for name, kind in METHODS.items():
        for recipe in available():
            settings = load_recipe(recipe)
            if settings.method_name != name:
                continue
            given = settings.dump()
            if "teacher" in kind.config_type.model_fields:
                # Studies of a part that needs a teacher are run with one named.
                given = merge(given, {"method": {"teacher": "fieldmark:any", "texts": "birds"}})
            for variants in kind.ablations.values():
                for tables in variants.values():
                    Recipe.parse(merge(given, tables), recipe)


def test_command_line():
    text = CliRunner().invoke(app, ["methods"])
    assert text.exit_code == 0
    for name in METHODS:
        assert f"{name}: " in text.output
