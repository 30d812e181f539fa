"""What environment each process of the platform is given."""

from dataclasses import replace

import pytest

from api.cli.home import Home
from api.cli.models.model_argument import ModelArgument
from api.cli.settings import CliSettings, Location
from api.cli.supervisor.processes import Serving, api_spec, cpu_worker_spec, generation_worker_specs


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
    specs = [api_spec(serving, 3), cpu_worker_spec(serving)]
    return {spec.environment["TOKENPOST_WEBHOOK_LOOPBACK"] for spec in specs}


def test_loopback_webhooks_are_allowed_where_callers_need_no_key(home: Home) -> None:
    assert _loopback_wishes(home) == _loopback_wishes(home, host="localhost") == {"true"}
    assert _loopback_wishes(home, host="0.0.0.0") == {"false"}
    assert _loopback_wishes(home, is_key_required=True) == {"false"}


def test_a_wish_of_the_user_goes_before(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_WEBHOOK_LOOPBACK", "false")
    assert _loopback_wishes(home) == {"false"}


def test_a_fork_request_tells_where_conversions_lie(home: Home) -> None:
    models = (ModelArgument(name="a", source="/a.gguf"),)
    [spec] = generation_worker_specs(replace(_serving(home), models=models))

    assert spec.environment["TOKENPOST_MODEL_FOLDER"] == str(home.models)
