"""Write cli.md, config.md, datasets.md and recipes.md from the code; ``--check`` only compares."""

import sys
from pathlib import Path
from typing import Any

import typer.main

from fieldmark.cli.app import app
from fieldmark.config import Config
from fieldmark.data.benchmarks import BENCHMARKS
from fieldmark.data.presets import PRESETS
from fieldmark.methods import METHODS
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import FinetuneConfig
from fieldmark.workflows import recipe as recipes

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code; `make docs` rewrites it. -->\n\n"


def cli_page() -> str:
    group = typer.main.get_command(app)
    assert hasattr(group, "commands")
    lines = [NOTE + "# Command line\n"]
    lines.append(
        "Every command has `--help` with examples and `--json` (one object on the last line of "
        "stdout; everything meant for a person goes to stderr). Running a command again continues "
        "where it stopped. Exit codes: 0 done, 1 something failed, 2 the input cannot be used, "
        "130 stopped by Ctrl-C with everything saved. `NO_COLOR` is respected.\n"
    )
    for name, command in group.commands.items():
        lines += _command_lines("##", f"fieldmark {name}", command)
        for inner, below in getattr(command, "commands", {}).items():
            lines += _command_lines("###", f"fieldmark {name} {inner}", below)
    return "\n".join(lines)


def _command_lines(level: str, name: str, command: Any) -> list[str]:
    lines = [f"{level} {name}\n\n{(command.help or '').strip()}\n"]
    if command.params:
        lines.append("| argument | meaning | default |\n|---|---|---|")
        lines += [_parameter_row(parameter) for parameter in command.params]
        lines.append("")
    return lines


def _parameter_row(parameter: Any) -> str:
    if getattr(parameter, "param_type_name", "") == "argument":
        names = f"`{(parameter.metavar or parameter.name).upper()}`"
    else:
        names = ", ".join(f"`{option}`" for option in parameter.opts)
    default = parameter.default
    shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
    if parameter.required:
        shown = "required"
    return f"| {names} | {(getattr(parameter, 'help', '') or '').replace('|', '/')} | {shown} |"


def datasets_page() -> str:
    lines = [NOTE + "# Data sets\n"]
    lines.append(
        "`fieldmark datasets NAME=PATH` opens a folder as it was downloaded, compares its lists with "
        "the official counts, looks whether every listed photo is there, and says what is annotated; "
        "`--table split.csv` writes `path,label,split`, which every command takes as photos and as "
        "`--probe`. A part of a data set (fewer classes or photos in the official layout) opens too, "
        "and everything measured on it says so. `NAME:LEVEL=PATH` takes the labels of a coarser level. "
        "Files that may be missing are marked; boxes, parts, masks and attributes are read where they "
        "are. Nothing is ever downloaded.\n"
    )
    for reader in BENCHMARKS.values():
        facts = reader.facts
        parts = ", ".join(f"{count:,} {part}" for part, count in facts.photos.items())
        size = f"{facts.classes:,} classes ({facts.level}), {parts}. " if facts.classes else ""
        lines.append(f"## {facts.name}: {facts.title}\n\n{size}Split: {facts.split}.\n")
        lines.append(f"{facts.source}\n\nLicence: {facts.licence}.\n")
        if facts.citation:
            lines.append(f"{facts.citation}.\n")
        if facts.overlap:
            lines.append(f"Overlap with usual starts: {facts.overlap}.\n")
        lines.append(f"```text\n{facts.layout}\n```\n")
    return "\n".join(lines)


def config_page() -> str:
    lines = [NOTE + "# Recipe settings\n"]
    lines.append(
        "A recipe is one TOML file; `--set table.key=value` overrides a value. Unknown keys are "
        "refused with the closest valid name. A file may start from a shipped recipe with "
        '`base = "mocov2"`.\n'
    )
    lines.append(_table("(top level)", recipes.Recipe, skip={"method", "method_name"}))
    for name, field in recipes.Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            lines.append(_table(f"[{name}]", field.annotation))
    for name, method in METHODS.items():
        lines.append(_table(f'[method] with name = "{name}"', method.config_type))
    lines.append(_table("fieldmark finetune (--set key=value)", FinetuneConfig))
    lines.append(
        "Those of training are given as `--set train.key=value`; these differ from a recipe's "
        f"defaults: {_differences(FinetuneConfig().train, TrainConfig())}.\n"
    )
    return "\n".join(lines)


def _differences(config: Config, usual: Config) -> str:
    return ", ".join(
        f"`{name} = {value!r}`" for name, value in config if value != getattr(usual, name)
    )


def _table(title: str, model: type[Config], skip: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = [f"## {title}\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name in skip or (isinstance(kind, type) and issubclass(kind, Config)):
            continue
        shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        text = (field.description or "").replace("\n", " ").replace("|", "/")
        rows.append(f"| `{name}` | {shown.replace('|', 'or')} | {default} | {text} |")
    return "\n".join(rows) + "\n"


def recipes_page() -> str:
    lines = [
        NOTE + "# Recipes and presets\n",
        "| recipe | what it is for | source |",
        "|---|---|---|",
    ]
    for name in recipes.available():
        recipe = recipes.load_recipe(name)
        also = [alias for alias, real in recipes.ALIASES.items() if real == name]
        called = ", ".join(f"`{known}`" for known in [name, *also])
        lines.append(f"| {called} | {recipe.description} | {recipe.source} |")
    lines += [
        "",
        "## Presets for the kind of photo\n",
        "| preset | what it changes and why |",
        "|---|---|",
    ]
    for name, preset in PRESETS.items():
        lines.append(f"| `{name}` | {preset.describe().replace(chr(10), '<br>')} |")
    return "\n".join(lines) + "\n"


PAGES = {
    "cli.md": cli_page,
    "config.md": config_page,
    "datasets.md": datasets_page,
    "recipes.md": recipes_page,
}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        text, path = make().rstrip() + "\n", DOCS / name
        if "--check" in sys.argv:
            if not path.is_file() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print(f"out of date: {', '.join(stale)}; run make docs")
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
