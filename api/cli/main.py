"""The `tokenpost` command: its sub-commands, and the exception boundary that prints an error as one line."""

import importlib
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup

from api.cli.commands import up_command
from api.cli.console import print_error, print_line
from storage.errors import PlatformError


class _Commands(TyperGroup):
    """The sub-commands, and the exception boundary: an error that the user can correct is one line, with exit code 1.

    All but `up` are imported when one of them is asked for: the start of a platform would wait for their imports.
    """

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer hides its click
        """The names of all commands."""
        self._import_others()
        return super().list_commands(ctx)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> object:  # type: ignore[override]  # as above
        """The command of that name."""
        if cmd_name not in self.commands:
            self._import_others()
        return super().get_command(ctx, cmd_name)

    def _import_others(self) -> None:
        others = typer.main.get_group(importlib.import_module("api.cli.other_commands").app)
        self.commands = {**self.commands, **others.commands}

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # as above
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # pydantic puts this prefix before the message of a validator.
            error.message = error.message.removeprefix("Value error, ")
            raise
        except PlatformError as error:
            print_error(error.message)
        raise typer.Exit(1)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Plain help: it keeps square brackets, and reads as well in a pipe.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Job-queue based asynchronous inference for language models, with the OpenAI API.",
    epilog="Each option can be set by its environment variable; secrets also by a file that TOKENPOST_*_FILE names.",
)


@app.callback(invoke_without_command=True)
def tokenpost(
    is_version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
) -> None:
    """Handle options that need no sub-command."""
    if is_version:
        print_line(f"tokenpost {version('tokenpost')}")
        raise typer.Exit


app.command("up")(up_command.up)


if __name__ == "__main__":
    app(prog_name="tokenpost")
