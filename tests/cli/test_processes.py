"""What environment each process of the platform is given."""

import pytest

from api.cli.home import Home
from api.cli.settings import CliSettings, Location
from api.cli.supervisor.fork_client import ForkServer
from api.cli.supervisor.processes import Serving, api_spec, fork_server_spec, worker_specs


def _serving(home: Home, *, host: str = "127.0.0.1", is_key_required: bool = False) -> Serving:
    location = Location(home=home, database_url=home.database_url, redis_url=home.redis_url, is_embedded=True)
    return Serving(
        location=location,
        settings=CliSettings(),
        models=(),
        host=host,
        port=1,
        replicas=1,
        device="cpu",
        dtype="auto",
        is_key_required=is_key_required,
    )


def _loopback_wishes(home: Home, *, host: str = "127.0.0.1", is_key_required: bool = False) -> set[str]:
    serving = _serving(home, host=host, is_key_required=is_key_required)
    specs = [api_spec(serving, 3), *worker_specs(serving)]
    assert len(specs) == 2
    return {spec.environment["TOKENPOST_WEBHOOK_LOOPBACK"] for spec in specs}


def test_loopback_webhooks_are_allowed_where_callers_need_no_key(home: Home) -> None:
    assert _loopback_wishes(home) == _loopback_wishes(home, host="localhost") == {"true"}
    assert _loopback_wishes(home, host="0.0.0.0") == {"false"}
    assert _loopback_wishes(home, is_key_required=True) == {"false"}


def test_a_wish_of_the_user_goes_before(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_WEBHOOK_LOOPBACK", "false")
    assert _loopback_wishes(home) == {"false"}


def test_the_fork_server_finds_conversions_where_workers_make_them(home: Home) -> None:
    home.create()
    server = ForkServer(home.fork_socket)
    try:
        spec = fork_server_spec(_serving(home), server)
    finally:
        server.close()

    assert spec.environment["TOKENPOST_MODEL_FOLDER"] == str(home.models)
