"""`tokenpost batches`: create, list, show, cancel, watch and fetch batches, through the HTTP API."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from api.cli.batches.batch_progress import ENDED, counted, upload_bar, watch
from api.cli.batches.http_api import HttpApi, JsonObject, download_to
from api.cli.commands.ps import find_running
from api.cli.console import age, fail, print_error, print_fields, print_json, print_line, print_table, utc_now
from api.cli.open_database import location_of
from api.cli.options import HomeOption, JsonOption
from api.cli.settings import CliSettings
from storage.errors import SettingInvalid

app = typer.Typer(no_args_is_help=True, help="Create batches of requests, watch them and fetch their results.")

_DEFAULT_URL = "http://127.0.0.1:8000"
# The line that says which endpoint a file is for.
_MAX_LINE_BYTES = 10_000_000

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="TOKENPOST_URL",
        help="Address of the API; its key is TOKENPOST_API_KEY.  [default: what runs in the home]",
    ),
]
_IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The batch's id: batch_...", show_default=False)]


@app.command("create")
def create(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSON lines, a request each.", exists=True, dir_okay=False, readable=True),
    ],
    endpoint: Annotated[
        str | None, typer.Option(metavar="PATH", help="Endpoint of the requests.  [default: url of the first line]")
    ] = None,
    window: Annotated[str, typer.Option(metavar="SPAN", help="When it must be done: 1h to 168h.")] = "24h",
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Kept with it; may be given again.")
    ] = None,
    is_watched: Annotated[bool, typer.Option("--watch", help="Wait for its end, as `watch` does.")] = False,
    home: HomeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a file and create a batch of its lines."""
    pairs = dict(_pair(one) for one in metadata or ())
    wanted = {"endpoint": endpoint or _endpoint_of(file), "completion_window": window, "metadata": pairs}
    with _api(home, url) as api:
        with upload_bar(file.name, file.stat().st_size) as on_sent:
            uploaded = api.upload(file, purpose="batch", on_sent=on_sent)
        batch = api.post("/batches", {"input_file_id": uploaded["id"], **wanted})
        if is_watched:
            if not as_json:
                print_error(f"created {batch['id']}")
            batch = watch(api, batch["id"])
    if as_json:
        print_json(batch)
    else:
        print_line(batch["id"])
    if is_watched:
        _end_as(batch)


@app.command("list")
def list_batches(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="At most so many.")] = 20,
    home: HomeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List batches, the newest first."""
    with _api(home, url) as api:
        found = api.get("/batches", limit=limit)["data"]
    if as_json:
        print_json(found)
        return
    now = utc_now()
    rows = [
        (one["id"], one["status"], one["endpoint"], *_counts_of(one), age(_moment(one["created_at"]), now))
        for one in found
    ]
    print_table(
        ("ID", "STATUS", "ENDPOINT", "TOTAL", "COMPLETED", "FAILED", "AGE"), rows, empty="There are no batches."
    )


@app.command("show")
def show(batch_id: _IdArgument, home: HomeOption = None, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a batch, and why it was refused if it was."""
    with _api(home, url) as api:
        batch = api.get(f"/batches/{batch_id}")
    if as_json:
        print_json(batch)
        return
    total, completed, failed = _counts_of(batch)
    fields = {name: value for name, value in batch.items() if not isinstance(value, dict | list) and value is not None}
    times = {name: f"{_moment(value):%Y-%m-%d %H:%M:%S} UTC" for name, value in fields.items() if _is_time(name)}
    print_fields({**fields, **times, "total": total, "completed": completed, "failed": failed})
    if batch["errors"] is not None:
        print_line("")
        rows = [(one["line"], one["code"], one["message"]) for one in batch["errors"]["data"]]
        print_table(("LINE", "CODE", "MESSAGE"), rows, empty="")


@app.command("cancel")
def cancel(batch_id: _IdArgument, home: HomeOption = None, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Cancel a batch; what was done is kept."""
    with _api(home, url) as api:
        batch = api.post(f"/batches/{batch_id}/cancel", {})
    if as_json:
        print_json(batch)
    else:
        print_line(f"{batch['status']}: {counted(batch)}")


@app.command("watch")
def watch_batch(
    batch_id: _IdArgument, home: HomeOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Show a batch's progress until it has ended."""
    with _api(home, url) as api:
        batch = watch(api, batch_id)
    if as_json:
        print_json(batch)
    else:
        print_line(f"{batch['status']}: {counted(batch)}")
    _end_as(batch)


@app.command("results")
def results(
    batch_id: _IdArgument,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the results go.  [default: stdout]", dir_okay=False)
    ] = None,
    errors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the failed requests go.", dir_okay=False)
    ] = None,
    home: HomeOption = None,
    url: UrlOption = None,
) -> None:
    """Fetch the results of a batch that has ended."""
    with _api(home, url) as api:
        batch = api.get(f"/batches/{batch_id}")
        if batch["status"] not in ENDED:
            fail(f"{batch_id} has not ended: {batch['status']}, {counted(batch)}")
        output_id, error_id = batch["output_file_id"], batch["error_file_id"]
        if output_id is not None and output is not None:
            download_to(api, output_id, output)
        elif output_id is not None:
            _print_content(api, output_id)
        if error_id is not None and errors is not None:
            download_to(api, error_id, errors)
    print_error(f"{batch['status']}: {counted(batch)}")
    if error_id is not None and errors is None:
        print_error("--errors FILE fetches the failed requests")


@contextmanager
def _api(home: Path | None, url: str | None) -> Iterator[HttpApi]:
    """The API that a command's options select."""
    key = CliSettings.read().api_key
    if url is None:
        running = find_running(location_of(home))
        url = _DEFAULT_URL if running is None else running.url
    if not url.startswith(("http://", "https://")):
        raise SettingInvalid("TOKENPOST_URL: must begin with http:// or https://")
    with HttpApi(url, None if key is None else key.get_secret_value()) as api:
        yield api


def _print_content(api: HttpApi, file_id: str) -> None:
    try:
        api.download(file_id, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader of the pipe has enough. What Python flushes at its end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None


def _endpoint_of(path: Path) -> str:
    """The `url` of the file's first request."""
    with path.open("rb") as file:
        line = file.readline(_MAX_LINE_BYTES).removeprefix(b"\xef\xbb\xbf").strip()
    try:
        found = msgspec.json.decode(line, type=dict[str, object]).get("url")
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, str):
        raise SettingInvalid(f"the first line of {path} is no request with a url; --endpoint names it")
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise SettingInvalid(f"'{text}' is not KEY=VALUE")
    return key, value


def _end_as(batch: JsonObject) -> None:
    """End the command with 1 where the batch did not complete."""
    if batch["status"] != "completed":
        raise typer.Exit(1)


def _counts_of(batch: JsonObject) -> tuple[int, int, int]:
    counts = batch["request_counts"]
    return counts["total"], counts["completed"], counts["failed"]


def _is_time(name: str) -> bool:
    return name.endswith("_at")


def _moment(unix_time: int) -> datetime:
    return datetime.fromtimestamp(unix_time, UTC)
