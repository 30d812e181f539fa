"""Dialogs with tools: calls, parallel calls, answers from results, and questions for which no tool fits."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.dialog import Call, Message
from demo.phrases import FALLBACK
from demo.structured import requests, values
from demo.structured.toolboxes import Tool, draw_tool, draw_toolbox, draw_topic

# A question that needs no tool, and its answer.
DrawPlain = Callable[[Random], list[Message]]
NO_TOOL, ONE_TOOL = "No tool fits this question.", "The tool {n} fits this question."
SEVERAL_CALLS, ANSWERED = "This needs {n} calls.", "The tool has answered."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDialog:
    """Tools and the messages of a user who asks for them."""

    tools: list[Tool]
    messages: list[Message]


def draw_tool_dialog(rng: Random, draw_plain: DrawPlain) -> ToolDialog:
    """One to four questions to the same tools, each with its calls, results and answer."""
    tools = draw_toolbox(rng, rng.choices((1, 2, 3, 4), (38, 34, 19, 9))[0])
    messages: list[Message] = []
    # Declarations are long: many tools with many questions would not fit into a training document.
    for _ in range(min(rng.choices((1, 2, 3, 4), (16, 34, 32, 18))[0], 5 - len(tools))):
        kind = rng.random()
        if kind < 0.16:
            asked = draw_plain(rng)
        elif kind < 0.24:
            asked = unfitting(rng, tools)
        else:
            asked = needed(rng, tools)
        messages += asked
    return ToolDialog(tools=tools, messages=messages)


def needed(rng: Random, tools: list[Tool]) -> list[Message]:
    """A question with the calls it needs, mostly followed by the results and the answer."""
    question, calls = ask_in_parallel(rng, tools) if rng.random() < 0.22 else ask_once(rng, tools)
    thought = ONE_TOOL.format(n=calls[0].name) if len(calls) == 1 else SEVERAL_CALLS.format(n=len(calls))
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content="", calls=tuple(calls), thought=thought),
    ]
    return messages + results(rng, len(calls)) if rng.random() < 0.75 else messages


def ask_once(rng: Random, tools: list[Tool]) -> tuple[str, list[Call]]:
    """A question for one of the tools."""
    tool = rng.choice(tools)
    call = requests.draw_call(rng, tool)
    return requests.opened(rng, requests.ask(rng, tool, dict(call.arguments))), [call]


def ask_in_parallel(rng: Random, tools: list[Tool]) -> tuple[str, list[Call]]:
    """A message that needs two or three calls: of one tool with different values, or of two questions."""
    lists = [tool for tool in tools if _takes_lists(tool)]
    if lists and rng.random() < 0.55:
        tool = rng.choice(lists)
        parameter = tool.parameters[0]
        found = list(
            {repr(value): value for value in (parameter.draw(rng) for _ in range(rng.choice((2, 2, 3))))}.values()
        )
        calls = [Call(name=tool.name, arguments={parameter.name: value}) for value in found]
        return requests.ask_twice(rng, tool, parameter, found), calls
    asked = [(tool, requests.draw_call(rng, tool)) for tool in (rng.choice(tools), rng.choice(tools))]
    first, second = (requests.ask(rng, tool, dict(call.arguments)) for tool, call in asked)
    return requests.joined(rng, first, second), [call for _, call in asked]


def results(rng: Random, num_calls: int) -> list[Message]:
    """The results of the calls and the answer from them, one line for each."""
    texts = [requests.draw_result(rng) for _ in range(num_calls)]
    told = [Message(role="tool", content=text) for text in texts]
    answer = "\n".join(requests.answer(text) for text in texts)
    return [*told, Message(role="assistant", content=answer, thought=ANSWERED)]


def unfitting(rng: Random, tools: list[Tool], *, held_out: bool = False) -> list[Message]:
    """A question for a tool that is not there."""
    while True:
        topic = values.word(rng) if rng.random() < 0.5 and not held_out else draw_topic(rng, held_out)
        if not any(word in tool.name.lower() or word in tool.topic for tool in tools for word in topic.split()):
            break
    other = draw_tool(rng, topic)
    question = requests.ask(rng, other, dict(requests.draw_call(rng, other).arguments))
    return [
        Message(role="user", content=question),
        Message(role="assistant", content=FALLBACK, thought=NO_TOOL),
    ]


def _takes_lists(tool: Tool) -> bool:
    return len(tool.parameters) == 1 and tool.parameters[0].is_listable
