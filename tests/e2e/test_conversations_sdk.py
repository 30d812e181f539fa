"""Conversations through the whole platform, by the unmodified SDK."""

import openai
import pytest

from tests.e2e.platform import Platform


def test_turns_of_a_conversation_are_kept_and_listed(platform: Platform) -> None:
    with openai.OpenAI(base_url=platform.base_url, api_key="none", max_retries=0) as client:
        conversation = client.conversations.create(items=[{"role": "developer", "content": "Be short."}])
        ids = []
        for said in ("Hello", "Who are you?", "Goodbye"):
            events = list(
                client.responses.create(
                    model="demo", conversation=conversation.id, input=said, max_output_tokens=12, stream=True
                )
            )
            final = events[-1].response  # type: ignore[union-attr]  # of a terminal event
            assert final.conversation is not None
            assert final.conversation.id == conversation.id
            ids.append(final.output[0].id)

        items = list(client.conversations.items.list(conversation.id, limit=2))
        assert [item.id for item in items[:6:2]] == ids[::-1]
        assert len(items) == 7
        page = client.conversations.items.list(conversation.id, limit=2)
        assert page.last_id == page.data[-1].id
        client.conversations.items.delete(ids[0], conversation_id=conversation.id)
        assert len(list(client.conversations.items.list(conversation.id))) == 6
        assert client.conversations.delete(conversation.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="demo", conversation=conversation.id, input="Hello")
