"""All commands but `up`; imported when one of them, or the list of all, is asked for."""

import typer

from api.cli.batches import batches_command
from api.cli.commands import (
    jobs_command,
    keys_command,
    models_command,
    operate,
    run_alone,
    webhooks_command,
)

app = typer.Typer(rich_markup_mode=None)
app.command("serve")(run_alone.serve)
app.command("worker")(run_alone.worker)
app.command("ps")(operate.ps)
app.command("doctor")(operate.doctor)
app.add_typer(jobs_command.app, name="jobs")
app.add_typer(batches_command.app, name="batches")
app.add_typer(models_command.app, name="models")
app.add_typer(keys_command.app, name="keys")
app.add_typer(webhooks_command.app, name="webhooks")
app.add_typer(operate.database_app, name="db")
