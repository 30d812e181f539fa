"""Both ways to draw on a CPU."""

import pytest

from tests.model.sampling.asked import Drawing
from workers.model.native.library import Library


@pytest.fixture(scope="session", params=["torch", "native"])
def drawing(request: pytest.FixtureRequest, library: Library) -> Drawing:
    """Draws on torch, and then in the library."""
    return Drawing(library if request.param == "native" else None)
