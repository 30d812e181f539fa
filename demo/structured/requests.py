"""What users ask for when tools are there: questions, the calls that they need, results, and answers from results."""

import json
from random import Random

from demo.dialog import Call, dump
from demo.structured import values
from demo.structured.toolboxes import NAMED_PHRASES, Parameter, Tool

_READ_FRAMES = (
    *("What is the {t}{p}?", "What's the {t}{p}?", "Tell me the {t}{p}.", "Show me the {t}{p}.", "Get the {t}{p}."),
    *("I need the {t}{p}.", "Can you find the {t}{p}?", "Could you look up the {t}{p}?", "Give me the {t}{p}."),
    *("Do you know the {t}{p}?", "How is the {t}{p}?", "{T}{p}", "{T}{p}?", "I would like to know the {t}{p}."),
    *("Please check the {t}{p}.", "Find the {t}{p}.", "What was the {t}{p}?", "Look up the {t}{p}, please."),
    *("Find me a {t}{p}.", "Is there a {t}{p}?", "Search for a {t}{p}.", "I am looking for a {t}{p}."),
    *("Which {t} do you have{p}?", "Can you tell me the {t}{p}?", "What {t} is there{p}?", "How about the {t}{p}?"),
)
_WRITE_FRAMES = (
    *("{V} a {t}{p}.", "{V} the {t}{p}.", "Please {v} a {t}{p}.", "Can you {v} the {t}{p}?", "{V} {t}{p}"),
    *("I want to {v} a {t}{p}.", "Could you {v} my {t}{p}, please?", "I'd like to {v} the {t}{p}."),
    *("Go ahead and {v} the {t}{p}.", "Would you {v} a {t}{p}?", "{V} my {t}{p}.", "You should {v} the {t}{p}."),
    *("I need you to {v} a {t}{p}.", "Help me {v} the {t}{p}.", "{V} one {t}{p}.", "Now {v} the {t}{p}."),
)
_OPENERS = ("", "", "", "", "", "", "Hi! ", "Hello, ", "Hey, ", "Okay. ", "Next: ", "Good morning. ", "Quick one: ")
_JOINERS = (" Also, ", " ", " And ", "\n", " Then: ", " After that, ", " Second: ")
_CONDITIONS = ("sunny", "cloudy", "rain", "done", "sent", "ok", "unknown", "ready", "full", "late", "cold", "open")


def draw_call(rng: Random, tool: Tool) -> Call:
    """A call with values for what is required, and for some of the rest."""
    given = [p for p in tool.parameters if p.is_required or rng.random() < 0.5]
    return Call(name=tool.name, arguments={p.name: p.draw(rng) for p in given})


def ask(rng: Random, tool: Tool, arguments: dict[str, object]) -> str:
    """A question that needs the tool with these arguments."""
    told = "".join(_tellings(rng, tool, arguments))
    frame = rng.choice(_READ_FRAMES if tool.is_reading else _WRITE_FRAMES)
    verb = tool.verb.replace("_", " ")
    parts = {"t": tool.topic, "T": tool.topic.capitalize(), "v": verb, "V": verb.capitalize(), "p": told}
    request = frame.format(**parts)
    # A value at the end of a frame loses its mark now and then, as in hasty typing.
    return request[:-1] if request[-1] in ".?" and rng.random() < 0.12 else request


def opened(rng: Random, request: str) -> str:
    """The request with a greeting before it, sometimes."""
    opener = rng.choice(_OPENERS)
    return opener + (request[0].lower() + request[1:] if opener.endswith((", ", ": ")) else request)


def ask_twice(rng: Random, tool: Tool, parameter: Parameter, found: list[object]) -> str:
    """One question that needs the tool once for each of these values of its only parameter."""
    phrase = rng.choice([one for one in parameter.role.phrases if one] or NAMED_PHRASES[:2])
    told = [phrase.format(v=value, p=parameter.words) for value in found]
    if len(found) == 2 and rng.random() < 0.4:
        joined = " and".join(told)
    else:
        joined = phrase.format(v=values.listed([str(value) for value in found]), p=parameter.words)
    frame = rng.choice(_READ_FRAMES if tool.is_reading else _WRITE_FRAMES)
    verb = tool.verb.replace("_", " ")
    return frame.format(t=tool.topic, T=tool.topic.capitalize(), v=verb, V=verb.capitalize(), p=joined)


def joined(rng: Random, first: str, second: str) -> str:
    """Two requests in one message."""
    joiner = rng.choice(_JOINERS)
    closed = first if first[-1] in ".?!" else first + "."
    return closed + joiner + (second[0].lower() + second[1:] if joiner[-2:] == ", " or "And" in joiner else second)


def draw_result(rng: Random) -> str:
    """What a tool answers: a JSON object, a text, a number."""
    kind = rng.random()
    if kind < 0.6:
        return dump({_key(rng): _value(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))})
    if kind < 0.72:
        return values.phrase(rng)
    if kind < 0.8:
        return str(values.decimal(rng))
    return values.sentence(rng)


def answer(result: str) -> str:
    """The assistant's answer from a tool's result: a sentence for each key of a JSON object, else the text itself."""
    try:
        parsed = json.loads(result)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or not parsed:
        return f"The result is: {result}"
    return " ".join(f"The {key.replace('_', ' ')} is {_told(value)}." for key, value in parsed.items())


def _tellings(rng: Random, tool: Tool, arguments: dict[str, object]) -> list[str]:
    told = [p for p in tool.parameters if p.name in arguments]
    first, rest = told[:1], told[1:]
    rng.shuffle(rest)
    tellings = []
    for parameter in first + rest:
        value = arguments[parameter.name]
        phrases = parameter.role.phrases
        is_plain = parameter.role.names and parameter.words in _plain_names(parameter)
        # The first value may follow without its name; of several, most are told by name or by their own phrase.
        is_named = not phrases[0] or not (is_plain or (parameter is told[0] and rng.random() < 0.7))
        phrase = rng.choice(NAMED_PHRASES if is_named or rng.random() < 0.2 else phrases)
        if isinstance(value, bool):
            phrase = rng.choice((" with {p} {v}", ", {p}: {v}", " and {p} {v}", " ({p}: {v})"))
        elif isinstance(value, str) and value[-1:] in ".?!":
            # Without quotes nobody could tell whose mark it is.
            phrase = rng.choice((' with {p} "{v}"', ' that says "{v}"', ' saying "{v}"', ': "{v}"', ", {p}: '{v}'"))
        tellings.append(phrase.format(p=parameter.words, v=_told(value)))
    return tellings


def _plain_names(parameter: Parameter) -> set[str]:
    return {name.replace("_", " ") for name in parameter.role.names}


def _told(value: object) -> str:
    if isinstance(value, list):
        return values.listed([str(item) for item in value])
    return value if isinstance(value, str) else dump(value)


def _key(rng: Random) -> str:
    known = ("temperature", "condition", "price", "status", "city", "name", "id", "result", "error", "count", "unit")
    key = rng.choice(known) if rng.random() < 0.35 else values.word(rng)
    return key if rng.random() < 0.8 else f"{key}_{values.word(rng)}"


def _value(rng: Random) -> object:
    drawers = (
        *(values.phrase, values.place, values.person, values.date, values.code, values.whole, values.decimal),
        *(values.word, lambda r: r.choice(_CONDITIONS), values.time, values.whole, values.phrase, values.sentence),
        lambda r: r.random() < 0.5,
    )
    return rng.choice(drawers)(rng)
