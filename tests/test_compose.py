"""compose.yaml and the Dockerfiles, judged by their structure: no Docker engine is needed."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SERVICES = {"redis", "postgres", "migrate", "api", "cpu-worker", "generation-worker-cpu", "generation-worker-gpu"}
LASTING = sorted(SERVICES - {"migrate"})
Service = dict[str, Any]  # Any: a piece of YAML


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed file."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def test_the_parts_are_there_and_models_run_by_profile(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVICES
    profiles = {name: service.get("profiles") for name, service in compose["services"].items()}
    assert profiles["generation-worker-cpu"] == ["cpu"]
    assert profiles["generation-worker-gpu"] == ["gpu"]
    assert [name for name, profile in profiles.items() if profile] == ["generation-worker-cpu", "generation-worker-gpu"]


@pytest.mark.parametrize("name", LASTING)
def test_each_lasting_service_tells_its_health_and_may_end_in_peace(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["healthcheck"]["test"][0] == "CMD"
    assert int(service["stop_grace_period"].removesuffix("s")) >= 30
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_runs_as_root(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["user"] not in ("", "root", "0", "0:0")
    assert service["cap_drop"] == ["ALL"]


def test_every_volume_is_named(compose: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", ())
    }

    assert mounted == set(compose["volumes"]) == {"redis", "postgres", "models"}


def test_each_dependency_is_a_service_and_waits_for_its_health(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, how in service.get("depends_on", {}).items():
            assert name in SERVICES
            wanted = "service_completed_successfully" if name == "migrate" else "service_healthy"
            assert how == {"condition": wanted}


def test_secrets_are_asked_for_and_given_only_to_those_who_need_them(compose: dict[str, Any]) -> None:
    services = compose["services"]

    for name in ("TOKENPOST_API_KEY", "TOKENPOST_PEPPER"):
        assert services["api"]["environment"][name].startswith(f"${{{name}:?")
        assert [service for service, body in services.items() if name in body.get("environment", {})] == ["api"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${TOKENPOST_POSTGRES_PASSWORD:?")


def test_redis_keeps_every_write_and_needs_a_password(compose: dict[str, Any], tmp_path: Path) -> None:
    redis = compose["services"]["redis"]
    password, max_memory = "s3cret", "64mb"
    # The server of the image is replaced by a program that prints its configuration.
    server = tmp_path / "valkey-server"
    server.write_text('#!/bin/sh\ncat "$1"\n')
    server.chmod(0o755)
    command = [part.replace("$$", "$").replace("/tmp/", f"{tmp_path}/") for part in redis["command"]]
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "REDISCLI_AUTH": password,
        "TOKENPOST_REDIS_MAX_MEMORY": max_memory,
    }

    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    options = dict(line.split(" ", 1) for line in shown.splitlines())
    assert options["requirepass"] == password
    assert options["appendonly"] == "yes"
    assert options["maxmemory"] == max_memory
    assert options["maxmemory-policy"] == "noeviction"
    assert redis["environment"]["REDISCLI_AUTH"].startswith("${TOKENPOST_REDIS_PASSWORD:?")


@pytest.mark.parametrize("name", sorted(SERVICES - {"redis", "postgres"}))
def test_every_service_reaches_redis_with_its_password(compose: dict[str, Any], name: str) -> None:
    url = compose["services"][name]["environment"]["TOKENPOST_REDIS_URL"]

    assert url.startswith("redis://:${TOKENPOST_REDIS_PASSWORD:?")
    assert url.endswith("}@redis:6379/0")


def test_the_gpu_worker_asks_for_a_gpu(compose: dict[str, Any]) -> None:
    (device,) = compose["services"]["generation-worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert device["capabilities"] == ["gpu"]


@pytest.mark.parametrize(("room", "extras"), [("api", "[postgres]"), ("workers", "[torch,postgres]")])
def test_an_image_installs_pinned_versions_and_leaves_root(room: str, extras: str) -> None:
    text = (ROOT / room / "Dockerfile").read_text()

    assert f"-c constraints.txt '.{extras}'" in text
    last_user = re.findall(r"^USER (\w+)$", text, re.MULTILINE)[-1]
    assert last_user == "tokenpost"
    assert "useradd --create-home --uid 10001 tokenpost" in text
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_each_image_is_built_from_its_own_dockerfile(compose: dict[str, Any]) -> None:
    built = {service["build"]["dockerfile"] for service in compose["services"].values() if "build" in service}

    assert built == {"api/Dockerfile", "workers/Dockerfile"}
    assert all((ROOT / path).is_file() for path in built)
