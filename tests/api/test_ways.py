"""The three ways to a result, with the unmodified SDK."""

import openai

from tests.api.fake_worker import TEXT


def test_a_response_is_answered_at_once(client: openai.OpenAI) -> None:
    response = client.responses.create(model="demo", input="Hi")

    assert response.output_text == TEXT
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == 7
