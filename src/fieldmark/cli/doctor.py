from typing import Annotated, Any

import typer

from fieldmark.cli.console import Json, emit


def command(
    seconds: Annotated[
        float, typer.Option(help="Length of the speed check; 0 leaves it out.", min=0)
    ] = 10.0,
    json: Json = False,
) -> None:
    """Tell versions, devices, threads, allocator and anything wrong with the installation.

    Examples: `fieldmark doctor`, `fieldmark doctor --seconds 0 --json`
    """
    from fieldmark.workflows.doctor import examine

    report = examine(seconds)
    emit(json, report, _text(report))
    if report["problems"]:
        raise typer.Exit(1)


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"{name:<14}{version or 'not installed'}" for name, version in report["versions"].items()
    ]
    for section in ("machine", "devices"):
        lines += [f"{name:<14}{value}" for name, value in report.get(section, {}).items()]
    if "allocator" in report:
        lines.append(f"{'allocator':<14}{report['allocator']}")
    for name, rate in report.get("speed", {}).items():
        lines.append(f"{'speed ' + name:<14}{rate} images/s (MobileNetV2 forward, 128 px)")
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]] or ["Nothing wrong found."]
    return "\n".join(lines)
