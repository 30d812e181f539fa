"""Answers as each family writes them, with what a parser must make of them; and three tools."""

from collections.abc import Iterable, Sequence

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened, Reasoning, Segment, Text
from api.protocol.families.bound_family import BoundFamily, bind
from api.protocol.families.family import Family
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.grammar.output_grammar import ToolPart
from api.protocol.families.parsing.family_parser import FamilyParser
from api.protocol.families.parsing.parser_plan import CallableTool
from storage.contract import MARKER_SIGN

WEATHER: dict[str, object] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "note": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
    "additionalProperties": False,
}
NOW: dict[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}
SPACING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
TOOLS = (
    CallableTool(name="weather", parameters=WEATHER),
    CallableTool(name="now", parameters=NOW),
    CallableTool(name="run", is_custom=True),
)
PARTS = (
    ToolPart(name="weather", part={"json_schema": {**WEATHER, "x-guidance": SPACING}}),
    ToolPart(name="now", part={"json_schema": {**NOW, "x-guidance": SPACING}}),
    ToolPart(name="run", is_custom=True),
)


def call(name: str, arguments: str) -> list[Segment]:
    """A call as segments."""
    return [CallOpened(name), CallArguments(arguments), CallClosed()]


_OSLO, _NOW = call("weather", '{"city": "Oslo"}'), call("now", "{}")
_RUN: list[Segment] = [CallOpened("run", True), CallArguments("ls\n<x>"), CallClosed()]
# (family, state at the first token, output, segments)
RECORDED: tuple[tuple[str, str, str, Sequence[Segment]], ...] = (
    (
        "hermes",
        "",
        (
            '<think>\nOslo? "a</b>"\n</think>\n\nLet me.\n<tool_call>\n{"name": "weather", '
            '"arguments": {"city": "Oslo"}}\n</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
        ),
        [Reasoning('Oslo? "a</b>"'), Text("Let me."), *_OSLO, *_NOW],
    ),
    ("hermes", "thinking", "\nHm.\n</think>\n\n4, as </think> says", [Reasoning("Hm."), Text("4, as </think> says")]),
    (
        "hermes",
        "",
        (
            '<tool_call>\n{"name": "weather", "arguments": {"city": "a \\"}{\\" \\u00e9\\\\", '
            '"tags": ["]"]}}\n</tool_call>'
        ),
        call("weather", '{"city": "a \\"}{\\" \\u00e9\\\\", "tags": ["]"]}'),
    ),
    ("hermes", "", "<tool_call>\n<custom=run>\nls\n<x>\n</custom>\n</tool_call>", _RUN),
    (
        "qwen3_coder",
        "",
        (
            '<think>\nx\n</think>\n\n<tool_call>\n<function=weather>\n<parameter=city>\nOs"lo\n<b>\n</parameter>\n'
            "<parameter=days>\n3\n</parameter>\n<parameter=note>\nnull\n</parameter>\n</function>\n</tool_call>\n"
            "<tool_call>\n<function=now>\n</function>\n</tool_call>"
        ),
        [Reasoning("x"), *call("weather", '{"city": "Os\\"lo\\n<b>", "days": 3, "note": null}'), *_NOW],
    ),
    (
        "llama3",
        "",
        '{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "now", "parameters": {}}',
        [*_OSLO, *_NOW],
    ),
    ("llama3", "", '<|python_tag|>{"name": "now", "parameters": {}}', _NOW),
    ("llama3", "", '{"name": "weath', [Text('{"name": "weath')]),
    ("llama3", "", '{"name": "weather"', [CallOpened("weather")]),
    (
        "mistral",
        "",
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "now", "arguments": {}}]',
        [*_OSLO, *_NOW],
    ),
    (
        "mistral_named",
        "",
        '[THINK]Hm.[/THINK]See:[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]now[ARGS]{}',
        [Reasoning("Hm."), Text("See:"), *_OSLO, *_NOW],
    ),
    (
        "deepseek_v3",
        "",
        (
            "Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
            '{"city": "Oslo"}\n```'
            "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜>"
        ),
        [Text("Ok."), *_OSLO, *_NOW],
    ),
    (
        "deepseek_v3_1",
        "thinking",
        (
            'Hm.</think>Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}'
            "<｜tool▁call▁end｜>"
            "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
        [Reasoning("Hm."), Text("Ok."), *_OSLO, *_NOW],
    ),
    (
        "glm4_5",
        "",
        (
            "<think></think>\nOk.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
            '<arg_key>tags</arg_key>\n<arg_value>["a"]</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>'
        ),
        [Text("Ok."), *call("weather", '{"city": "Oslo", "tags": ["a"]}'), *_NOW],
    ),
    (
        "glm4_7",
        "thinking",
        (
            "Hm.</think><tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key>"
            "<arg_value>-2</arg_value></tool_call><tool_call>now</tool_call>"
        ),
        [Reasoning("Hm."), *call("weather", '{"city": "Oslo", "days": -2}'), *_NOW],
    ),
    (
        "kimi_k2",
        "",
        (
            "Ok.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
            '{"city": "Oslo"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}'
            "<|tool_call_end|><|tool_calls_section_end|>"
        ),
        [Text("Ok."), *_OSLO, *_NOW],
    ),
    (
        "minimax_m2",
        "thinking",
        (
            'Hm.\n</think>\n\n<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n'
            '<parameter name="tags">["a", "b"]</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n'
            "</minimax:tool_call>"
        ),
        [Reasoning("Hm."), *call("weather", '{"city": "Oslo", "tags": ["a", "b"]}'), *_NOW],
    ),
    (
        "gpt_oss",
        "",
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>First.<|end|>"
            '<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}'
        ),
        [Reasoning("Hm."), Text("First."), *_OSLO],
    ),
    (
        "gpt_oss",
        "",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>4 <|x|>",
        [Reasoning("Hm."), Text("4 <|x|>")],
    ),
    (
        "gemma4",
        "",
        (
            '<|channel>thought\nHm.\n<channel|>Ok. <|tool_call>call:weather{city:<|"|>Os"lo<|"|>,days:3,'
            'tags:[<|"|>a,b<|"|>]}<tool_call|><|tool_call>call:now{}<tool_call|>'
        ),
        [
            Reasoning("Hm."),
            Text("Ok."),
            *call("weather", '{"city": "Os\\"lo", "days": 3, "tags": ["a,b"]}'),
            *_NOW,
        ],
    ),
    (
        "lfm2",
        "",
        (
            '<|tool_call_start|>[weather(city="Os\\"l\\no", days=3, note=None, tags=["a", "(b)"]), '
            "now()]<|tool_call_end|>Ok."
        ),
        [
            *call("weather", '{"city": "Os\\"l\\no", "days": 3, "note": null, "tags": ["a", "(b)"]}'),
            *_NOW,
            Text("Ok."),
        ],
    ),
    (
        "qwen3_coder",
        "",
        "<tool_call>\n<function=weather>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        call("weather", '{"days": 3}'),
    ),
    (
        "deepseek_v3",
        "",
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜>"
        ),
        _NOW,
    ),
    (
        "glm4_5",
        "",
        "<tool_call>weather\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        call("weather", '{"days": 3}'),
    ),
    (
        "minimax_m2",
        "",
        (
            '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="days">3</parameter>\n</invoke>\n'
            "</minimax:tool_call>"
        ),
        call("weather", '{"days": 3}'),
    ),
    ("generic", "", 'Ok.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', [Text("Ok."), *_NOW]),
)
NAMES = tuple(name for name in FAMILIES if name != "plain")


def bound_to_tokens(family: Family, *, has_tokens: bool, first_id: int = 0) -> BoundFamily:
    """The family in a vocabulary in which its markers are tokens, or none of them is."""
    ids = {marker: first_id + index for index, marker in enumerate(family.markers)}
    return bind(family, ids.get if has_tokens else lambda _marker: None)


def as_written(text: str, bound: BoundFamily) -> str:
    """The text with MARKER_SIGN before each marker that is a token, as a worker gives it."""
    markers = sorted(bound.token_ids, key=len, reverse=True)
    pieces, position = [], 0
    while position < len(text):
        marker = next((one for one in markers if text.startswith(one, position)), None)
        pieces.append(text[position] if marker is None else MARKER_SIGN + marker)
        position += len(marker or "x")
    return "".join(pieces)


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The segments with neighbours of one kind made one."""
    result: list[Segment] = []
    for segment in segments:
        last = result[-1] if result else None
        if isinstance(segment, Text | Reasoning | CallArguments) and type(last) is type(segment):
            result[-1] = type(segment)(last.text + segment.text)
        else:
            result.append(segment)
    return result


class Reader:
    """A parser that reads one output after the other, each as a choice of its own."""

    def __init__(self, bound: BoundFamily, state: str = "", tools: Sequence[CallableTool] = TOOLS) -> None:
        self._parser = FamilyParser(bound.family, state, tools)
        self._num_read = 0

    def read(self, pieces: Iterable[str]) -> list[Segment]:
        """The segments of an output that comes in pieces."""
        self._num_read += 1
        segments = [one for piece in pieces for one in self._parser.push(self._num_read, piece, ())]
        return joined([*segments, *self._parser.close(self._num_read)])


def parsed(
    bound: BoundFamily, pieces: Iterable[str], state: str = "", tools: Sequence[CallableTool] = TOOLS
) -> list[Segment]:
    """The segments of an output that comes in pieces."""
    return Reader(bound, state, tools).read(pieces)
