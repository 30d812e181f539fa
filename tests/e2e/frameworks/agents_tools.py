"""openai-agents: two tools and a hand-off, by Responses and by Chat Completions. Prints `ok`."""

import asyncio
import sys

from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI

calls: list[str] = []


@function_tool
def is_rainy(day: bool) -> str:
    """Whether it rains by day or by night."""
    calls.append("is_rainy")
    return f"rain by day: {day}"


@function_tool
def clock() -> str:
    """The time."""
    calls.append("clock")
    return "noon"


async def run(model: Model) -> None:
    config = RunConfig(tracing_disabled=True)
    must = ModelSettings(tool_choice="required", parallel_tool_calls=False, max_tokens=200)
    worker = Agent(
        name="Worker",
        instructions="Use a tool.",
        model=model,
        tools=[is_rainy, clock],
        model_settings=must,
        tool_use_behavior="stop_on_first_tool",
    )
    result = await Runner.run(worker, "Is it raining?", run_config=config)
    assert calls, result
    assert result.final_output in ("noon", "rain by day: True", "rain by day: False"), result.final_output

    speaker = Agent(name="Speaker", model=model, model_settings=ModelSettings(temperature=0))
    router = Agent(name="Router", instructions="Hand off.", model=model, handoffs=[speaker], model_settings=must)
    handed = await Runner.run(router, "Say something.", run_config=config)
    assert handed.last_agent.name == "Speaker", handed

    streamed = Runner.run_streamed(worker, "Is it raining?", run_config=config)
    kinds = [event.type async for event in streamed.stream_events()]
    assert "run_item_stream_event" in kinds, kinds


async def main() -> None:
    async with AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0) as client:
        await run(OpenAIResponsesModel(model="demo", openai_client=client))
        await run(OpenAIChatCompletionsModel(model="demo", openai_client=client))
    sys.stdout.write("ok\n")


asyncio.run(main())
