"""Settings: from the environment, from files, and refused by name."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from storage.errors import SettingInvalid
from storage.settings import StorageSettings
from workers.settings import SweeperSettings

DATABASE = "sqlite:////var/lib/x.db"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "PEPPER", "LEASE_S"):
        monkeypatch.delenv(f"TOKENPOST_{name}", raising=False)
        monkeypatch.delenv(f"TOKENPOST_{name}_FILE", raising=False)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_DATABASE_URL", DATABASE)
    monkeypatch.setenv("TOKENPOST_REDIS_URL", "unix:///x.sock")
    monkeypatch.setenv("TOKENPOST_LEASE_S", "2.5")
    settings = StorageSettings.read()
    assert (settings.database_url, settings.redis_url, settings.lease_s) == (DATABASE, "unix:///x.sock", 2.5)
    assert settings.retention_s(True) == 30 * 86400
    assert settings.retention_s(False) == 600


def test_a_secret_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"DATABASE_URL": "postgres://u:p@h/d", "PEPPER": "a salt of sixteen"}.items():
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"TOKENPOST_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("TOKENPOST_REDIS_URL", "redis://h")
    settings = StorageSettings.read()

    assert settings.database_url == "postgresql+psycopg://u:p@h/d"
    assert settings.pepper is not None
    assert settings.pepper.get_secret_value() == "a salt of sixteen"
    assert "u:p" not in repr(settings)
    assert "salt of" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://x"),
        ("DATABASE_URL", ""),
        ("REDIS_URL", "http://x"),
        ("LEASE_S", "soon"),
        ("LEASE_S", "-1"),
        ("PEPPER_FILE", "/no/such/file"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TOKENPOST_DATABASE_URL", DATABASE)
    monkeypatch.setenv("TOKENPOST_REDIS_URL", "redis://h")
    monkeypatch.setenv(f"TOKENPOST_{name}", value)
    with pytest.raises(SettingInvalid, match=f"TOKENPOST_{name}"):
        StorageSettings.read()


def test_settings_do_not_change() -> None:
    settings = StorageSettings(database_url=DATABASE, redis_url="redis://h")
    with pytest.raises(ValidationError):
        settings.lease_s = 1.0  # type: ignore[misc]  # that it is frozen is the point


def test_internal_webhook_receivers_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_DATABASE_URL", DATABASE)
    monkeypatch.setenv("TOKENPOST_REDIS_URL", "unix:///x.sock")
    monkeypatch.setenv("TOKENPOST_WEBHOOK_ALLOW", "Hooks.internal, 10.0.0.0/8\n*.corp.example")
    monkeypatch.setenv("TOKENPOST_WEBHOOK_LOOPBACK", "true")
    settings = StorageSettings.read()

    policy = settings.webhook_policy(is_open=True)
    assert policy.allowed == ("hooks.internal", "10.0.0.0/8", "*.corp.example")
    assert (policy.allows_loopback, policy.allows_http) == (True, False)
    assert not settings.webhook_policy(is_open=False).allows_loopback

    monkeypatch.setenv("TOKENPOST_WEBHOOK_ALLOW", "10.0.0.1/8")
    with pytest.raises(SettingInvalid, match="WEBHOOK_ALLOW"):
        StorageSettings.read()


def test_a_deprecated_name_is_read_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_STARVE_AFTER_S", "7")
    with capture_logs() as logged:
        settings = SweeperSettings.read()

    assert settings.aging_after_s == 7
    assert logged == [
        {
            "event": "setting_deprecated",
            "log_level": "warning",
            "name": "TOKENPOST_STARVE_AFTER_S",
            "use": "TOKENPOST_AGING_AFTER_S",
        }
    ]


def test_the_new_name_wins_over_the_deprecated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_STARVE_AFTER_S", "7")
    monkeypatch.setenv("TOKENPOST_AGING_AFTER_S", "8")
    assert SweeperSettings.read().aging_after_s == 8
