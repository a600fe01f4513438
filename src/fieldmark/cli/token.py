"""``fieldmark token``: who may use a service."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.app.tokens import Scope
from fieldmark.cli.console import Json, emit

TokenFile = Annotated[Path, typer.Argument(help="File of tokens; only their hashes are in it.")]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def group() -> None:
    """Make, list and remove the tokens of fieldmark serve --tokens.

    Every command has --json. Running services notice changes with the next request. Scopes: read (look
    and search), label (also label photos), admin (also add and remove photos).

    Examples:

      fieldmark token add tokens.toml ida --scope label

      fieldmark token list tokens.toml
    """


@app.command()
def add(
    file: TokenFile,
    name: Annotated[str, typer.Argument(help="Whose it is; stands in the history of labels.")],
    scope: Annotated[Scope, typer.Option(help="What it allows.")] = Scope.read,
    json: Json = False,
) -> None:
    """Make a token and print it, this once.

    Example:

      fieldmark token add tokens.toml ida --scope label
    """
    from fieldmark.app.tokens import add_token

    secret = add_token(file, name, scope)
    emit(json, {"file": str(file), "name": name, "scope": str(scope), "token": secret}, secret)


@app.command("list")
def list_command(file: TokenFile, json: Json = False) -> None:
    """List names and scopes.

    Example:

      fieldmark token list tokens.toml
    """
    from fieldmark.app.tokens import read_tokens

    tokens = read_tokens(file)
    told = [{"name": token.name, "scope": str(token.scope)} for token in tokens]
    lines = [f"{token.scope:5}  {token.name}" for token in tokens]
    emit(json, {"file": str(file), "tokens": told}, "\n".join(lines) or f"{file} has no token.")


@app.command()
def remove(
    file: TokenFile,
    name: Annotated[str, typer.Argument(help="Whose token.")],
    json: Json = False,
) -> None:
    """Take a token away; it and its sessions end at once.

    Example:

      fieldmark token remove tokens.toml ida
    """
    from fieldmark.app.tokens import remove_token

    remove_token(file, name)
    emit(json, {"file": str(file), "removed": name}, f"{name} has no token in {file} any more.")
