"""``fieldmark methods``: what can be trained."""

from typing import Any

from fieldmark.cli.console import Json, emit


def command(json: Json = False) -> None:
    """List every method: the idea in a line, what it needs, when to use it, and its recipes.

    Examples: `fieldmark methods`, `fieldmark methods --json`
    """
    from fieldmark.workflows.methods import list_methods

    found = list_methods()
    emit(json, {"methods": found}, "\n\n".join(_text(method) for method in found))


def _text(method: dict[str, Any]) -> str:
    lines = [
        f"{method['name']}: {method['idea']}",
        f"  needs     {method['needs']}",
        f"  when      {method['when']}",
        f"  paper     {method['paper']}",
        f"  recipes   {', '.join(method['recipes']) or 'none; write one with method.name'}",
    ]
    if method["ablations"]:
        studies = "; ".join(f"{name} ({', '.join(v)})" for name, v in method["ablations"].items())
        lines.append(f"  ablate    {studies}")
    return "\n".join(lines)
