"""`encrypted_content`: what this installation signed for one project and model comes back, nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.protocol.thinking.signed_thoughts import read_thought, signed_thought, thought_key
from storage.errors import InvalidEncryptedContent

KEY = thought_key(b"pepper", "project", "model")


@given(st.text())
def test_a_thought_comes_back(text: str) -> None:
    assert read_thought(signed_thought(text, KEY), [KEY], param="input") == text
    assert signed_thought(text, KEY) == signed_thought(text, KEY)


@pytest.mark.parametrize(
    "other", [("other", "project", "model"), ("pepper", "other", "model"), ("pepper", "project", "other")]
)
def test_one_of_another_installation_project_or_model_is_refused(other: tuple[str, str, str]) -> None:
    pepper, project, model = other

    with pytest.raises(InvalidEncryptedContent) as refused:
        read_thought(signed_thought("a", thought_key(pepper.encode(), project, model)), [KEY], param="input[0].x")

    assert refused.value.param == "input[0].x"


@given(st.text() | st.text("tp1.=-_aA9", max_size=80).map("tpt1.{}".format))
def test_what_a_caller_makes_up_is_refused(content: str) -> None:
    with pytest.raises(InvalidEncryptedContent):
        read_thought(content, [KEY], param="input")


def test_a_changed_one_is_refused() -> None:
    content = signed_thought("a thought", KEY)
    for index in range(5, len(content)):
        changed = content[:index] + ("A" if content[index] != "A" else "B") + content[index + 1 :]
        # The last character may hold bits that belong to no byte.
        if index < len(content) - 1:
            with pytest.raises(InvalidEncryptedContent):
                read_thought(changed, [KEY], param="input")
