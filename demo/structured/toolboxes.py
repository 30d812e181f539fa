"""Random tools of the demo corpus: names, descriptions, parameters, and how their JSON declaration looks."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo import texts
from demo.dialog import Definition
from demo.structured import values
from demo.words import NOUNS, draw_word, is_held_out

READ_VERBS = ("get", "get", "get", "find", "look_up", "search", "fetch", "show", "check", "read", "list", "lookup")
WRITE_VERBS = (
    *("send", "create", "book", "set", "add", "delete", "update", "open", "close", "start", "stop", "play", "order"),
    *("move", "convert", "translate", "cancel", "buy", "sell", "post", "write", "rename", "publish", "schedule"),
    *("reserve", "remove", "print", "record", "share", "archive", "assign", "pay", "invite", "calculate"),
)
_KNOWN_TOPICS = (
    *("weather", "weather", "weather", "forecast", "temperature", "time", "stock price", "exchange rate", "news"),
    *("email", "event", "meeting", "reminder", "alarm", "song", "flight", "hotel", "restaurant", "order", "ticket"),
    *("user", "file", "note", "task", "invoice", "calendar", "light", "recipe", "movie", "book", "route", "distance"),
    *("price", "population", "message", "account", "balance", "address", "phone number", "score", "document"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A kind of parameter.

    names:   how such parameters are called; empty for any word
    type:    of JSON Schema
    phrases: how a user's question tells its value {v}; {p} stands for the name
    """

    names: tuple[str, ...]
    type: str
    phrases: tuple[str, ...]
    draw: Callable[[Random], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a tool; `words` is its name as a question says it, `options` what a choice allows."""

    name: str
    words: str
    role: Role
    options: tuple[str, ...]
    is_required: bool

    @property
    def is_listable(self) -> bool:
        """Whether a question may name several of its values in a row."""
        return self.role.type in ("string", "integer") and self.role.draw is not values.sentence

    def draw(self, rng: Random) -> object:
        """A value for it."""
        return rng.choice(self.options) if self.options else self.role.draw(rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool: what it is about, whether it only reads, and its declaration."""

    name: str
    verb: str
    topic: str
    is_reading: bool
    parameters: tuple[Parameter, ...]
    definition: Definition


def _role(names: str, kind: str, phrases: str, draw: Callable[[Random], object]) -> Role:
    return Role(names=tuple(names.split()), type=kind, phrases=tuple(phrases.split("|")), draw=draw)


ROLES = (
    *[_role("city location place town country region", "string", " in {v}| in {v}| for {v}| of {v}", values.place)] * 5,
    *[_role("name person user customer author employee", "string", " for {v}| of {v}| by {v}", values.person)] * 2,
    _role("recipient to receiver contact", "string", " to {v}| for {v}", values.person),
    _role("destination", "string", " to {v}", values.place),
    _role("origin source", "string", " from {v}", values.place),
    *[_role("query topic subject term q keyword", "string", " about {v}| on {v}| for {v}| for '{v}'", values.phrase)]
    * 2,
    *[
        _role(
            "text message body content note comment",
            "string",
            ' that says "{v}"| saying "{v}"|: "{v}"|: {v}| with the text "{v}"| {v}',
            values.sentence,
        )
    ]
    * 2,
    _role("title label filename", "string", " called {v}| named {v}| titled {v}|: {v}", values.phrase),
    _role("date day due_date start_date", "string", " on {v}| for {v}", values.date),
    _role("time hour start_time", "string", " at {v}", values.time),
    _role("symbol code id email url path phone", "string", " for {v}| of {v}| {v}| to {v}", values.code),
    _role("minutes days hours people guests pages", "integer", " for {v} {p}", values.whole),
    _role("count amount quantity limit number level size", "integer", " with {p} {v}| {v}", values.whole),
    _role("price weight temperature ratio amount", "number", " with a {p} of {v}| at {p} {v}", values.decimal),
    _role("unit colour mode priority format language category", "string", " in {v}| with {v} {p}| as {v}", str),
    _role("urgent verbose public active recurring private", "boolean", "", lambda rng: rng.random() < 0.7),
    _role("tags items names attendees words", "array", " with {p} {v}| {v}| for {v}", values.words),
    *[_role("", "string", "", values.phrase)] * 3,
    _role("", "string", "", values.code),
    _role("", "integer", "", values.whole),
    _role("", "string", "", str),
)
NAMED_PHRASES = (
    " with {p} {v}",
    " with the {p} {v}",
    ", {p} {v}",
    ", {p}: {v}",
    " ({p}: {v})",
    " where the {p} is {v}",
    " and {p} {v}",
    " using {v} as the {p}",
    " with {v} as {p}",
    " and the {p} is {v}",
    " with {p}={v}",
    ' with {p} "{v}"',
    " whose {p} is {v}",
)
_DESCRIPTIONS = (
    "{V} the {t}",
    "{V} the {t} of a {p}",
    "{V} a {t}.",
    "{V}s the {t} for a given {p}.",
    "{V} the current {t} for a {p}.",
    "{V} {t} by {p}",
    "{T} of a {p}",
    "Use this to {v} a {t}.",
    "{V}s {t} data.",
    "This function {v}s the {t}.",
    "Returns the {t}",
    "{T} tool",
)
_PARAMETER_DESCRIPTIONS = (
    "The {p}",
    "The {p} of the {t}",
    "{P}",
    "The {p}, e.g. {e}",
    "The {p} to use",
    "Which {p}",
    "{P} for the {t}",
    "{P} (for example {e})",
)


def draw_toolbox(rng: Random, num_tools: int, *, held_out: bool = False) -> list[Tool]:
    """Different tools; now and then two of them are about the same thing and differ by their verb."""
    tools: list[Tool] = []
    while len(tools) < num_tools:
        topic = (
            tools[-1].topic if tools and not tools[-1].is_reading and rng.random() < 0.2 else draw_topic(rng, held_out)
        )
        tool = draw_tool(rng, topic)
        same = [other for other in tools if other.topic == topic]
        if all(other.verb != tool.verb and not tool.is_reading for other in same):
            tools.append(tool)
    rng.shuffle(tools)
    return tools if len({tool.name for tool in tools}) == num_tools else draw_toolbox(rng, num_tools, held_out=held_out)


def draw_tool(rng: Random, topic: str) -> Tool:
    """A tool about this topic."""
    is_reading = rng.random() < 0.55
    verb = rng.choice(READ_VERBS if is_reading else WRITE_VERBS)
    is_named = rng.random() < 0.92
    parameters = _parameters(rng)
    name = _name(rng, verb, topic) if is_named else styled(rng, [draw_word(rng, False) for _ in range(2)])
    description = None
    if not is_named or rng.random() < 0.85:
        first = parameters[0].words if parameters else rng.choice(NOUNS)
        spoken = verb.replace("_", " ").replace("lookup", "look up")
        parts = {"v": spoken, "V": spoken.capitalize(), "t": topic, "T": topic.capitalize(), "p": first}
        description = rng.choice(_DESCRIPTIONS).format(**parts)
    definition = _definition(rng, name, description, topic, parameters)
    return Tool(name=name, verb=verb, topic=topic, is_reading=is_reading, parameters=parameters, definition=definition)


def styled(rng: Random, parts: list[str]) -> str:
    """An identifier of these words."""
    words = [word.lower() for part in parts for word in part.replace("-", " ").replace("_", " ").split()]
    style = rng.random()
    if style < 0.72:
        return "_".join(words)
    if style < 0.88:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    return "-".join(words) if style < 0.94 else "".join(word.capitalize() for word in words)


def _name(rng: Random, verb: str, topic: str) -> str:
    form = rng.random()
    if form < 0.75:
        parts = [verb, topic]
    elif form < 0.85:
        parts = [topic, verb]
    elif form < 0.93:
        parts = [topic]
    else:
        parts = [verb, rng.choice(("current", "my", "new", "all", "the")), topic]
    return styled(rng, parts)


def draw_topic(rng: Random, held_out: bool) -> str:
    """What a tool is about: one word, or two; of the held-out split one invented word."""
    if held_out:
        return draw_word(rng, True)
    if rng.random() < 0.25:
        return rng.choice(_KNOWN_TOPICS)
    while is_held_out("word", topic := rng.choice((*NOUNS, *texts.COMMON_WORDS)) if rng.random() < 0.75 else "a"):
        pass
    topic = topic if topic != "a" else draw_word(rng, False)
    return f"{topic} {values.word(rng)}" if rng.random() < 0.3 else topic


def _parameters(rng: Random) -> tuple[Parameter, ...]:
    num_parameters = rng.choices((0, 1, 2, 3, 4), (4, 48, 30, 13, 5))[0]
    drawn: dict[str, Parameter] = {}
    while len(drawn) < num_parameters:
        role = rng.choice(ROLES)
        words = rng.choice(role.names) if role.names and rng.random() < 0.8 else values.word(rng)
        if role.names and rng.random() < 0.08:
            words = f"{values.word(rng)} {words}"
        name = styled(rng, words.replace("_", " ").split())
        options = values.options(rng) if role.draw is str else ()
        is_required = not drawn or rng.random() < 0.7
        spoken = words.replace("_", " ")
        drawn[name] = Parameter(name=name, words=spoken, role=role, options=options, is_required=is_required)
    return tuple(drawn.values())


def _definition(
    rng: Random, name: str, description: str | None, topic: str, parameters: tuple[Parameter, ...]
) -> Definition:
    is_titled = rng.random() < 0.12
    is_described = rng.random() < 0.5
    properties = {p.name: _property(rng, p, topic, is_titled=is_titled, is_described=is_described) for p in parameters}
    required = [p.name for p in parameters if p.is_required]
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if required or rng.random() < 0.3:
        schema["required"] = required
    if rng.random() < 0.25:
        schema["additionalProperties"] = False
    if is_titled:
        schema["title"] = f"{name}_args"
    function: dict[str, object] = {"name": name}
    if description is not None:
        function["description"] = description
    function["parameters"] = dict(rng.sample(list(schema.items()), k=len(schema))) if rng.random() < 0.2 else schema
    if rng.random() < 0.15:
        function["strict"] = rng.random() < 0.7
    return {"type": "function", "function": function}


def _property(
    rng: Random, parameter: Parameter, topic: str, *, is_titled: bool, is_described: bool
) -> dict[str, object]:
    found: dict[str, object] = {"type": parameter.role.type}
    if parameter.role.type == "array":
        found["items"] = {"type": "string"}
    if parameter.options:
        found["enum"] = list(parameter.options)
    if is_titled:
        found["title"] = parameter.words.title()
    if is_described and parameter.role.type != "boolean":
        parts = {"p": parameter.words, "P": parameter.words.capitalize(), "t": topic, "e": parameter.draw(rng)}
        found["description"] = rng.choice(_PARAMETER_DESCRIPTIONS).format(**parts)
    return dict(reversed(found.items())) if rng.random() < 0.15 else found
