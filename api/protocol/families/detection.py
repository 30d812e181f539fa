"""Which family a model belongs to: its own description of its answers first, else what its chat template writes."""

from collections.abc import Callable

from msgspec import structs

from api.protocol.families import family_table
from api.protocol.families.bound_family import BoundFamily, bind
from api.protocol.families.family import Family
from api.protocol.families.response_template import family_of_template

# Texts of which a chat template holds all, and the family that writes them; the first row that fits decides.
_WRITTEN: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("<|channel|>", "<|message|>", "commentary"), family_table.GPT_OSS),
    (("<|tool_call>", "<tool_call|>"), family_table.GEMMA4),
    (("<｜tool▁calls▁begin｜>", "```json"), family_table.DEEPSEEK_V3),
    (("<｜tool▁calls▁begin｜>",), family_table.DEEPSEEK_V3_1),
    (("<|tool_calls_section_begin|>",), family_table.KIMI_K2),
    (("<minimax:tool_call>",), family_table.MINIMAX_M2),
    (("<|tool_call_start|>",), family_table.LFM2),
    (("<tool_call>", "</arg_key>\n<arg_value>"), family_table.GLM4_5),
    (("<tool_call>", "</arg_key>\\n<arg_value>"), family_table.GLM4_5),
    (("<tool_call>", "<arg_key>"), family_table.GLM4_7),
    (("<tool_call>", "<function="), family_table.QWEN3_CODER),
    (("[TOOL_CALLS]", "[ARGS]"), family_table.MISTRAL_NAMED),
    (("[TOOL_CALLS]",), family_table.MISTRAL),
    (("<|python_tag|>",), family_table.LLAMA3),
    (("<|eot_id|>", '"parameters"'), family_table.LLAMA3),
    (("<tool_call>",), family_table.HERMES),
)


def detected(chat_template: str | None, response_template: str | None = None) -> tuple[Family, str | None]:
    """The family of a model, and its own template where the family was read from that.

    response_template: the description that the model's folder brings, as JSON text
    """
    found = _by_chat_template(chat_template or "") if chat_template is not None else family_table.PLAIN
    own = None if response_template is None else family_of_template(response_template)
    if own is None:
        return found, None
    if own.calls is not None and found.calls is not None and _is_same(own, found):
        # The description does not say how white space is written; the chat template does.
        own = structs.replace(own, calls=found.calls, markers=(*own.markers, *found.markers))
    return own, response_template


def family_for(
    chat_template: str | None, response_template: str | None, token_id_of: Callable[[str], int | None]
) -> BoundFamily:
    """The family of a model with the markers of its vocabulary.

    token_id_of: the id of the added token with this text, None where there is none
    """
    family, template = detected(chat_template, response_template)
    return bind(family, token_id_of, template)


def _by_chat_template(text: str) -> Family:
    written = next((family for texts, family in _WRITTEN if all(one in text for one in texts)), family_table.GENERIC)
    region = written.thinking
    if region is not None and region.closing.strip() not in text and region.opening.strip() not in text:
        return structs.replace(written, thinking=None)
    return written


def _is_same(one: Family, other: Family) -> bool:
    """Whether both write calls behind one trigger and in one form."""
    first, second = one.calls, other.calls
    if first is None or second is None:
        return False
    return (first.trigger, first.arguments, first.joint.split()) == (
        second.trigger,
        second.arguments,
        second.joint.split(),
    )
