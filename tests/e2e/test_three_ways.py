"""One stored job, three ways to its result, with the unmodified SDK and the bundled model."""

import asyncio

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from tests.e2e.platform import Platform
from tests.waiting import wait_until

QUESTION = "What is 12 + 30?"


def test_a_blocking_call_answers_and_its_job_can_be_read_again(client: OpenAI) -> None:
    answered = client.responses.create(model="demo", input=QUESTION, temperature=0)

    read = client.responses.retrieve(answered.id)

    assert "42" in answered.output_text
    assert read == answered


def test_a_background_job_is_polled_to_its_end(client: OpenAI) -> None:
    created = client.responses.create(model="demo", input=QUESTION, temperature=0, background=True)
    assert created.status == "queued"

    ended = wait_until(lambda: _ended(client, created.id), 30)

    assert "42" in ended


def _ended(client: OpenAI, response_id: str) -> str:
    read = client.responses.retrieve(response_id)
    return read.output_text if read.status not in ("queued", "in_progress") else ""


def test_a_stream_of_a_background_job_can_be_left_and_resumed(client: OpenAI) -> None:
    prompt = "Tell me a story about a fox."
    seen = []
    with client.responses.create(model="demo", input=prompt, temperature=0, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.sequence_number == 9:
                break
    job_id = seen[0].response.id  # type: ignore[union-attr]  # the first event is response.created

    rest = list(client.responses.retrieve(job_id, stream=True, starting_after=9))

    assert [event.sequence_number for event in seen + rest] == list(range(len(seen) + len(rest)))
    assert rest[-1].type in ("response.completed", "response.incomplete")


def test_chats_run_side_by_side_and_stay_apart(platform: Platform) -> None:
    words = ("river", "stone", "cloud", "garden", "window", "yellow", "copper", "lantern")

    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=platform.base_url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(_asked(client, word) for word in words))

    answers = asyncio.run(ask_all())

    assert answers == ["-".join(word) for word in words]


async def _asked(client: AsyncOpenAI, word: str) -> str:
    question: ChatCompletionUserMessageParam = {"role": "user", "content": f"Spell the word {word}."}
    stream = await client.chat.completions.create(model="demo", messages=[question], temperature=0, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


def test_a_conversation_goes_on_from_a_stored_response(client: OpenAI) -> None:
    first = client.responses.create(model="demo", input="My name is Ada.", temperature=0)

    second = client.responses.create(
        model="demo", input="What is my name?", temperature=0, previous_response_id=first.id
    )

    assert "Ada" in second.output_text


def test_a_job_is_erased_on_request(client: OpenAI, platform: Platform) -> None:
    made = client.responses.create(model="demo", input="Hello!", temperature=0)

    client.responses.delete(made.id)

    assert made.id not in [job["id"] for job in platform.command("jobs", "list")]
