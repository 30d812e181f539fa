"""`expires_after`: a number of seconds, or an object with its anchor."""

import pytest

from api.protocol.shared.job_request import JobRequest as Request
from tests.protocol.examples import body
from tests.protocol.test_parsing import MINIMAL
from tests.protocol.test_sampling_fields import REQUESTS, refused_field


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize("value", [60, {"seconds": 60}, {"anchor": "created_at", "seconds": 60}])
def test_both_forms_mean_the_same(request_type: type[Request], value: object) -> None:
    request = request_type.parse(body(**{**MINIMAL[request_type], "expires_after": value}))

    assert request.expires_after is not None
    assert request.expires_after.seconds == 60
    assert request_type.parse(body(**MINIMAL[request_type])).expires_after is None


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize(
    "wrong",
    [0, -1, 30 * 86400 + 1, 2**70, 1.5, "60", True, [], {}, {"seconds": 0}, {"anchor": "ended_at", "seconds": 9}],
    ids=str,
)
def test_a_wrong_deadline_is_named(request_type: type[Request], wrong: object) -> None:
    field = refused_field(request_type, expires_after=wrong) or ""

    assert field.startswith("expires_after")
    assert isinstance(wrong, dict) or field == "expires_after"
