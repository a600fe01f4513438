"""The command line's entry point: registers commands, turns errors into one paragraph."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from fieldmark import __version__
from fieldmark.cli import (
    ablate,
    bench,
    check,
    classify,
    cluster,
    compare,
    datasets,
    doctor,
    duplicates,
    embed,
    explain,
    export,
    finetune,
    index,
    label,
    methods,
    outliers,
    plan,
    preview,
    report,
    sample,
    search,
    serve,
    token,
    train,
    verify,
)
from fieldmark.cli import eval as evaluate
from fieldmark.cli.console import messages
from fieldmark.errors import FieldmarkError

app = typer.Typer(
    name="fieldmark",
    help="Learn to tell look-alikes apart from unlabelled photos, and prove whether it helped.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "sample": sample.command,
    "check": check.command,
    "preview": preview.command,
    "plan": plan.command,
    "train": train.command,
    "eval": evaluate.command,
    "embed": embed.command,
    "index": index.app,
    "search": search.command,
    "duplicates": duplicates.command,
    "outliers": outliers.command,
    "cluster": cluster.command,
    "label": label.app,
    "classify": classify.command,
    "explain": explain.command,
    "serve": serve.command,
    "token": token.app,
    "export": export.command,
    "finetune": finetune.command,
    "ablate": ablate.command,
    "bench": bench.command,
    "compare": compare.command,
    "verify": verify.command,
    "report": report.command,
    "methods": methods.command,
    "datasets": datasets.command,
    "doctor": doctor.command,
}
for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(name=_name)(_command)


def _version(value: bool | None) -> None:
    if value:
        typer.echo(f"fieldmark {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors raised on purpose become a paragraph and an exit code."""
    try:
        app()
    except FieldmarkError as error:
        messages().print(f"fieldmark: {error}", markup=False, style="bold red", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        messages().print("fieldmark: stopped.", markup=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
