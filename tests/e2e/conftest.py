"""One platform with the bundled model for all tests that only talk to it."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.e2e.platform import Platform, running_platform
from tests.kernels import compiled_library
from tests.plain_http import sdk_client


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    """The kernels, compiled before the first platform starts and not by each of its workers."""
    compiled_library()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform; tests must not stop parts of it."""
    with running_platform(tmp_path_factory.mktemp("platform") / "home") as started:
        yield started


@pytest.fixture
def client(platform: Platform) -> Iterator[OpenAI]:
    """The unmodified SDK, without retries that would hide a fault."""
    with sdk_client(platform.base_url) as opened:
        yield opened
