"""openai-agents: a session whose items are those of a conversation. Prints `ok`."""

import asyncio
import sys

from agents import Agent, ModelSettings, OpenAIConversationsSession, OpenAIResponsesModel, RunConfig, Runner
from openai import AsyncOpenAI

# The framework takes an answer that its token limit cut for a fault.
_SHORT = ModelSettings(temperature=0, extra_body={"stop": [".", " "]})


async def run(client: AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=client)
    model = OpenAIResponsesModel(model="demo", openai_client=client)
    agent = Agent(
        name="Speaker",
        instructions="Be short.",
        model=model,
        model_settings=_SHORT,
    )
    config = RunConfig(tracing_disabled=True)
    answers = []
    for said in ("Hello", "Who are you?", "Goodbye"):
        result = await Runner.run(agent, said, session=session, run_config=config)
        answers.append(result.final_output)
    items = await session.get_items()
    assert [item["role"] for item in items] == ["user", "assistant"] * 3, items
    assert [item["content"][0]["text"] for item in items[1::2]] == answers, items

    # More than a page of the server holds.
    await session.add_items([{"role": "user", "content": str(number)} for number in range(45)])
    every = await session.get_items()
    assert len(every) == 51, len(every)
    assert await session.get_items(limit=30) == every[-30:]
    assert await session.pop_item() == every[-1]
    assert await session.get_items() == every[:-1]

    conversation_id = session.session_id
    await session.clear_session()
    assert await session.get_items() == []
    assert session.session_id != conversation_id


async def main() -> None:
    async with AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0) as client:
        await run(client)
    sys.stdout.write("ok\n")


asyncio.run(main())
