"""The doctor: what is in order, what is not, and what to do."""

from pathlib import Path

import pytest

from api.cli.commands.doctor import Finding, examine_infrastructure, examine_models
from api.cli.home import Home
from api.cli.models.local_models import ModelFolder
from api.cli.settings import CliSettings, Location
from tests.cli.conftest import WHOLE_WEIGHTS, Run


def model_finding(model: object) -> Finding:
    """The doctor's finding about one model, where nothing was pulled."""
    (finding,) = examine_models([str(model)], ModelFolder(path=Path("/nowhere")))
    return finding


def test_all_is_well_with_a_platform_that_stands(run: Run, model_folder: Path) -> None:
    said = run("doctor", "--model", str(model_folder))

    assert said.code == 0
    assert [line.split()[:2] for line in said.out.splitlines()] == [
        ["ok", name] for name in ("disk", "redis", "database", "pepper", "model", "device")
    ]


def test_each_trouble_comes_with_advice_and_exit_code_1(run: Run, tmp_path: Path) -> None:
    arguments = ["--redis-url", "redis://127.0.0.1:1/0", "--database-url", "postgresql://127.0.0.1:1/nothing"]

    said = run("doctor", "--json", "--model", str(tmp_path / "nowhere"), *arguments)

    assert said.code == 1
    assert not said.json["is_ok"]
    finding_by_name = {finding["name"]: finding for finding in said.json["findings"]}
    for name in ("redis", "database", "model"):
        assert not finding_by_name[name]["is_ok"]
        assert finding_by_name[name]["advice"]


def test_a_home_that_never_ran_is_no_trouble(tmp_path: Path) -> None:
    home = Home(path=tmp_path / "new")
    location = Location(home=home, database_url=home.database_url, redis_url=home.redis_url, is_embedded=True)

    findings = examine_infrastructure(location, CliSettings())

    assert [finding.name for finding in findings if finding.is_ok] == ["disk", "redis", "database", "pepper"]
    assert not home.path.exists()


def test_tables_of_another_version_are_reported(tmp_path: Path) -> None:
    home = Home(path=tmp_path)
    (tmp_path / "tokenpost.db").touch()
    location = Location(home=home, database_url=home.database_url, redis_url=home.redis_url, is_embedded=True)

    database = examine_infrastructure(location, CliSettings())[2]

    assert database.advice == "tokenpost db upgrade"


@pytest.mark.parametrize(("pepper", "is_ok"), [("", False), ("x" * 15, False), ("x" * 16, True)])
def test_a_pepper_that_can_be_guessed_is_found(tmp_path: Path, pepper: str, is_ok: bool) -> None:
    home = Home(path=tmp_path)
    home.pepper_file.write_text(f"{pepper}\n")
    location = Location(home=home, database_url=home.database_url, redis_url=home.redis_url, is_embedded=True)

    finding = examine_infrastructure(location, CliSettings())[3]

    assert (finding.name, finding.is_ok) == ("pepper", is_ok)
    assert (finding.advice is None) is is_ok


@pytest.mark.parametrize(
    "content", [WHOLE_WEIGHTS[:-1], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b""]
)
def test_weights_that_are_not_whole_are_found(model_folder: Path, content: bytes) -> None:
    (model_folder / "model.safetensors").write_bytes(content)

    finding = model_finding(model_folder)

    assert not finding.is_ok
    assert "no whole safetensors file" in finding.fact


def test_a_hugging_face_model_may_be_downloaded_later_but_not_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    online = model_finding("Qwen/Qwen3-0.6B")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = model_finding("Qwen/Qwen3-0.6B")
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen3-0.6B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    (snapshot / "model.safetensors").touch()

    assert online.is_ok
    assert not offline.is_ok
    assert model_finding("Qwen/Qwen3-0.6B").is_ok
