"""Held-out dialogs of the skills with tools and forms: the generator's wordings, about topics it never draws."""

from random import Random

from demo.dialog import Call, Dialog, Message
from demo.structured import tool_dialogs
from demo.structured.form_filling import draw_form
from demo.structured.toolboxes import draw_toolbox


def draw(skill: str, rng: Random) -> Dialog:
    """A dialog whose last message is the right answer; its tools are about held-out words."""
    if skill == "form":
        while (messages := draw_form(rng))[-1].are_keys_set:
            pass
        return Dialog(messages=messages)
    tools = draw_toolbox(rng, rng.randint(1, 3), held_out=True)
    definitions = tuple(tool.definition for tool in tools)
    match skill:
        case "tool_call":
            return Dialog(messages=_asked(*tool_dialogs.ask_once(rng, tools)), tools=definitions)
        case "parallel_calls":
            while len((asked := tool_dialogs.ask_in_parallel(rng, tools))[1]) < 2:
                pass
            return Dialog(messages=_asked(*asked), tools=definitions)
        case "no_call":
            return Dialog(messages=tool_dialogs.unfitting(rng, tools, held_out=True), tools=definitions)
        case _:
            question, calls = tool_dialogs.ask_once(rng, tools)
            return Dialog(messages=_asked(question, calls) + tool_dialogs.results(rng, 1), tools=definitions)


def _asked(question: str, calls: list[Call]) -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content="", calls=tuple(calls))]
