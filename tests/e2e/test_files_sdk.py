"""Files through a whole platform, with the unmodified SDK."""

import io

import openai
import pytest
from openai import OpenAI


def test_the_sdk_uploads_and_downloads_a_large_file(client: OpenAI) -> None:
    content = b"".join(b'{"custom_id": "%d"}\n' % number for number in range(800_000))

    made = client.files.create(file=("lines.jsonl", io.BytesIO(content)), purpose="batch")

    assert client.files.wait_for_processing(made.id).bytes == len(content)
    with client.files.with_streaming_response.content(made.id) as answer:
        assert b"".join(answer.iter_bytes()) == content
    assert made.id in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
