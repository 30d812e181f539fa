"""One platform with the bundled model for all tests that only talk to it."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.e2e.platform import Platform, running_platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform; tests must not stop parts of it."""
    with running_platform(tmp_path_factory.mktemp("platform") / "home") as started:
        yield started


@pytest.fixture
def client(platform: Platform) -> Iterator[OpenAI]:
    """The unmodified SDK, without retries that would hide a fault."""
    with OpenAI(base_url=platform.base_url, api_key="none", max_retries=0) as opened:
        yield opened
