"""Both ways to sample on a CPU."""

import pytest

from tests.model.sampling.asked import Backend
from workers.model.native.library import Library


@pytest.fixture(scope="session", params=["torch", "native"])
def backend(request: pytest.FixtureRequest, library: Library) -> Backend:
    """Samples on torch, and then in the library."""
    return Backend(library if request.param == "native" else None)
