"""`tokenpost webhooks`: endpoints, deliveries, redelivery, secrets, and a local receiver for tests."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Annotated

import typer

from api.authentication.api_keys import LOCAL_OWNER
from api.cli.commands.webhook_listen import listen
from api.cli.commands.webhook_outcome import answer_of, wait_for_outcome
from api.cli.console import age, fail, parse_duration, print_fields, print_json, print_line, print_table, utc_now
from api.cli.open_database import location_of, opened, writing
from api.cli.options import DatabaseOption, HomeOption, JsonOption
from api.cli.settings import Location
from api.webhooks.url_check import WebhookUrlCheck
from api.webhooks.webhook_objects import delivery_objects, endpoint_object, redelivered_object, secret_object
from storage.accounts import keys
from storage.database.connections import Database
from storage.errors import SettingInvalid
from storage.ids import new_id
from storage.settings import StorageSettings
from storage.webhooks import deliveries, endpoints
from storage.webhooks.deliveries import Redelivered, Span, redeliver_span
from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import DeliveryStatus, WebhookAttempt, WebhookDelivery, WebhookEndpoint

app = typer.Typer(no_args_is_help=True, help="Make and test webhook endpoints, list deliveries, redeliver.")

OwnerOption = Annotated[str, typer.Option(metavar="NAME", help="Whose they are: the owner of the API key.")]
_EventOption = Annotated[
    list[str] | None,
    typer.Option("--event", metavar="TYPE", help="Only events of this type; may be given again.  [default: all]"),
]
_IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id: we_...", show_default=False)]


@app.command("list")
def list_endpoints(
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List an owner's endpoints, the newest first."""
    with opened(location_of(home, database_url)) as database, database.connect() as connection:
        found = endpoints.list_endpoints(connection, owner, limit=1000, is_newest_first=True)
    if as_json:
        print_json([endpoint_object(endpoint) for endpoint in found])
        return
    rows = [(one.id, one.name, _state(one), len(one.event_types) or "all", one.url) for one in found]
    print_table(("ID", "NAME", "STATE", "TYPES", "URL"), rows, empty=f"{owner} has no webhook endpoints.")


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted.", show_default=False)],
    name: Annotated[str, typer.Option(metavar="NAME", help="A name for people.")] = "endpoint",
    event: _EventOption = None,
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an endpoint and show its signing secret, this once."""
    types, location = _known_types(event), location_of(home, database_url)
    with opened(location) as database:
        with database.connect() as connection:
            has_keys = keys.any_exists(connection)
        _judge(url, location, has_keys=has_keys)
        with database.begin() as connection:
            made = endpoints.create_endpoint(
                connection,
                endpoint_id=new_id("we_"),
                owner=owner,
                name=name,
                url=url,
                event_types=types,
                secret=new_secret(),
                now=utc_now(),
            )
    if as_json:
        print_json(endpoint_object(made, shows_secret=True))
        return
    print_fields({"id": made.id, "owner": owner, "url": url, "signing secret": made.secret})
    print_line("Keep the secret now; it is not shown again.")


@app.command("delete")
def delete(
    endpoint_id: _IdArgument,
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete an endpoint; its pending deliveries are dropped."""
    with opened(location_of(home, database_url)) as database, database.begin() as connection:
        endpoints.delete_endpoint(connection, endpoint_id, owner, utc_now())
    if as_json:
        print_json({"id": endpoint_id, "deleted": True})
    else:
        print_line("Deleted.")


@app.command("test")
def send_test(
    endpoint_id: _IdArgument,
    event: Annotated[str, typer.Option(metavar="TYPE", help="The type of the event.")] = EVENT_TYPES[0],
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a sample event to an endpoint and show the answer; needs a running CPU worker."""
    [event_type] = _known_types([event])
    with opened(location_of(home, database_url)) as database:
        with database.begin() as connection:
            endpoint = endpoints.get_endpoint(connection, endpoint_id, owner)
            delivery_id = deliveries.create_test_delivery(connection, endpoint, event_type, utc_now()).id
        attempt = wait_for_outcome(database, delivery_id)
        with database.connect() as connection:
            delivery = deliveries.get_delivery(connection, delivery_id, owner)
    if as_json:
        print_json(delivery_objects([delivery], [] if attempt is None else [attempt])[0])
    elif attempt is not None:
        print_line(f"{answer_of(attempt)} in {attempt.latency_ms} ms.")
    if attempt is None:
        fail("no CPU worker has sent the event; does the platform run?")
    if delivery.status is not DeliveryStatus.DELIVERED:
        raise typer.Exit(1)


@app.command("deliveries")
def list_deliveries(
    endpoint: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this endpoint.")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this job.")] = None,
    status: Annotated[
        DeliveryStatus | None, typer.Option(metavar="STATUS", help="Only those that are pending, delivered or dead.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="At most so many.")] = 50,
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, the newest first."""
    with opened(location_of(home, database_url)) as database, database.connect() as connection:
        found = deliveries.list_deliveries(
            connection, owner, endpoint_id=endpoint, job_id=job, status=status, limit=limit
        )
        attempts = deliveries.list_attempts(connection, [delivery.id for delivery in found])
    if as_json:
        print_json(delivery_objects(found, attempts))
        return
    newest = {attempt.delivery_id: attempt for attempt in attempts}
    rows = [_row(delivery, newest.get(delivery.id)) for delivery in found]
    columns = ("ID", "TYPE", "JOB", "STATUS", "ATTEMPTS", "ANSWER", "AGE")
    print_table(columns, rows, empty="There are no such deliveries.")


@app.command("redeliver")
def redeliver(
    some_id: Annotated[
        str, typer.Argument(metavar="ID", help="A delivery's id, dlv_..., or an endpoint's.", show_default=False)
    ],
    since: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Of an endpoint, all of the last 30m, 12h, 7d.")
    ] = None,
    status: Annotated[
        DeliveryStatus | None, typer.Option(metavar="STATUS", help="Only those that are pending, delivered or dead.")
    ] = None,
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one delivery again, or all of an endpoint in a time range."""
    span = None if since is None else parse_duration(since)
    if (span is None) == some_id.startswith("we_"):
        fail("an endpoint needs --since, a delivery does not", code=2)
    with opened(location_of(home, database_url)) as database:
        num_deliveries = _redeliver(database, some_id, owner, span, status)
    if as_json:
        print_json(redelivered_object(some_id, num_deliveries) if span else {"id": some_id, "status": "pending"})
    else:
        print_line(f"Due again: {num_deliveries}.")


def _redeliver(
    database: Database, some_id: str, owner: str, span: timedelta | None, status: DeliveryStatus | None
) -> int:
    write, now = writing(database), utc_now()
    if span is None:
        write(lambda connection: deliveries.redeliver(connection, some_id, owner, now))
        return 1
    meant = Span(endpoint_id=some_id, owner=owner, since=now - span, until=now, status=status)
    done = Redelivered()
    while done.after is not None:
        done = write(partial(redeliver_span, span=meant, so_far=done))
    return done.num_deliveries


@app.command("secret")
def secret(
    rotate: Annotated[bool, typer.Option("--rotate", help="Replace it first.")] = False,
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the secret that signs events for jobs whose own target has no secret."""
    fresh, now = new_secret(), utc_now()
    with opened(location_of(home, database_url)) as database, database.begin() as connection:
        if rotate:
            endpoints.replace_default_secret(connection, owner, fresh, now)
        found = endpoints.default_secret(connection, owner, fresh, now)
    if as_json:
        print_json(secret_object(found))
    else:
        print_line(found)


@app.command("listen")
def listen_(
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8099,
    event: _EventOption = None,
    is_private: Annotated[
        bool, typer.Option("--no-endpoint", help="Make no endpoint: only what jobs name as their target comes.")
    ] = False,
    owner: OwnerOption = LOCAL_OWNER,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Receive, verify and print events on this machine until Ctrl-C."""
    types = _known_types(event)
    with opened(location_of(home, database_url)) as database:
        listen(database, owner, types, port=port, makes_endpoint=not is_private, as_json=as_json)


def _known_types(names: list[str] | None) -> list[str]:
    """The event types without duplicates; SettingInvalid for an unknown one."""
    for name in names or []:
        if name not in EVENT_TYPES:
            raise SettingInvalid(f"'{name}' is no type of event; there are {', '.join(EVENT_TYPES)}")
    return list(dict.fromkeys(names or []))


def _judge(url: str, location: Location, *, has_keys: bool) -> None:
    """Raise WebhookUrlRefused for a URL that the policy of this environment's settings refuses."""
    settings = StorageSettings.read(
        database_url=location.database_url, redis_url=location.redis_url, webhook_loopback=True
    )
    receivers = WebhookUrlCheck(lambda: settings.webhook_policy(is_open=not has_keys))
    asyncio.run(receivers.judge(url, param="url"))


def _state(endpoint: WebhookEndpoint) -> str:
    if endpoint.disabled_at is not None:
        return "disabled"
    return "failing" if endpoint.failing_since is not None else "enabled"


def _row(delivery: WebhookDelivery, newest: WebhookAttempt | None) -> tuple[object, ...]:
    answer = None if newest is None else answer_of(newest)
    since = age(delivery.created_at, utc_now())
    return (delivery.id, delivery.type, delivery.job_id, delivery.status, delivery.num_attempts, answer, since)
