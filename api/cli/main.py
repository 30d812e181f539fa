"""The `tokenpost` command: its sub-commands, and the exception boundary that prints an error as one line."""

from importlib.metadata import version
from typing import Annotated

import typer
from redis.exceptions import RedisError
from typer.core import TyperGroup

from api.cli.commands import jobs_command, keys_command, models_command, operate, run, webhooks_command
from api.cli.console import print_error, print_line
from storage.errors import PlatformError


class _ErrorBoundary(TyperGroup):
    """Exception boundary: an error that the user can correct is printed as one line, with exit code 1."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer hides its click
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # pydantic puts this prefix before the message of a validator.
            error.message = error.message.removeprefix("Value error, ")
            raise
        except PlatformError as error:
            print_error(error.message)
        except RedisError as error:
            print_error(f"Redis does not answer: {error}")
        raise typer.Exit(1)


app = typer.Typer(
    cls=_ErrorBoundary,
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


app.command("up")(run.up)
app.command("serve")(run.serve)
app.command("worker")(run.worker)
app.command("ps")(operate.ps)
app.command("doctor")(operate.doctor)
app.add_typer(jobs_command.app, name="jobs")
app.add_typer(models_command.app, name="models")
app.add_typer(keys_command.app, name="keys")
app.add_typer(webhooks_command.app, name="webhooks")
app.add_typer(operate.database_app, name="db")


if __name__ == "__main__":
    app(prog_name="tokenpost")
