"""The table of model families, with the literals of their chat templates.

Sources: the chat templates of Qwen3, Qwen3-Coder, Llama 3.1, Mistral Small 3, DeepSeek V3 and V3.1, GLM 4.5 and 4.7,
Kimi K2, MiniMax M2, GPT-OSS (harmony), Gemma 4 and LFM2.
"""

from collections.abc import Mapping

from msgspec import structs

from api.protocol.families.family import NUMBER, ArgumentForm, CallForm, Family, Region, Tags

_THINK = Region(opening="<think>", closing="</think>")
_THINK_MARKERS = ("<think>", "</think>")
_TOOL_CALL_MARKERS = ("<tool_call>", "</tool_call>")

HERMES = Family(
    name="hermes",
    markers=(*_THINK_MARKERS, *_TOOL_CALL_MARKERS),
    thinking=_THINK,
    calls=CallForm(
        trigger="<tool_call>",
        head='\n{"name": "',
        joint='", "arguments": ',
        tail="}\n",
        closing="</tool_call>",
    ),
)

# For templates that know no tools; the system text declares the form.
GENERIC = structs.replace(HERMES, name="generic")

QWEN3_CODER = Family(
    name="qwen3_coder",
    markers=(*_THINK_MARKERS, *_TOOL_CALL_MARKERS),
    thinking=_THINK,
    calls=CallForm(
        trigger="<tool_call>",
        head="\n<function=",
        joint=">\n",
        tail="</function>\n",
        closing="</tool_call>",
        arguments=ArgumentForm.TAGGED,
        tags=Tags(before_key="<parameter=", before_value=">\n", after_value="\n</parameter>\n"),
    ),
)

LLAMA3 = Family(
    name="llama3",
    markers=("<|python_tag|>",),
    calls=CallForm(
        trigger="<|python_tag|>",
        head='{"name": "',
        joint='", "parameters": ',
        tail="}",
        separator="; ",
        other_heads=('{"type": "function", "name": "',),
        is_bare=True,
    ),
)

MISTRAL = Family(
    name="mistral",
    markers=("[TOOL_CALLS]", "[THINK]", "[/THINK]"),
    thinking=Region(opening="[THINK]", closing="[/THINK]"),
    calls=CallForm(
        trigger="[TOOL_CALLS]",
        opening=" [",
        head='{"name": "',
        joint='", "arguments": ',
        tail="}",
        separator=", ",
        ending="]",
    ),
)

MISTRAL_NAMED = Family(
    name="mistral_named",
    markers=("[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"),
    thinking=Region(opening="[THINK]", closing="[/THINK]"),
    calls=CallForm(trigger="[TOOL_CALLS]", head="", joint="[ARGS]", tail=""),
)

_DEEPSEEK_MARKERS = (
    *_THINK_MARKERS,
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)

DEEPSEEK_V3 = Family(
    name="deepseek_v3",
    markers=_DEEPSEEK_MARKERS,
    thinking=_THINK,
    calls=CallForm(
        trigger="<｜tool▁calls▁begin｜>",
        head="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        joint="\n```json\n",
        tail="\n```<｜tool▁call▁end｜>",
        separator="\n",
        closing="<｜tool▁calls▁end｜>",
    ),
)

DEEPSEEK_V3_1 = Family(
    name="deepseek_v3_1",
    markers=_DEEPSEEK_MARKERS,
    thinking=_THINK,
    calls=CallForm(
        trigger="<｜tool▁calls▁begin｜>",
        head="<｜tool▁call▁begin｜>",
        joint="<｜tool▁sep｜>",
        tail="<｜tool▁call▁end｜>",
        separator="",
        closing="<｜tool▁calls▁end｜>",
    ),
)

_GLM_MARKERS = (
    *_THINK_MARKERS,
    *_TOOL_CALL_MARKERS,
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
)

GLM4_5 = Family(
    name="glm4_5",
    markers=_GLM_MARKERS,
    thinking=_THINK,
    calls=CallForm(
        trigger="<tool_call>",
        head="",
        joint="\n",
        tail="",
        closing="</tool_call>",
        arguments=ArgumentForm.TAGGED,
        tags=Tags(before_key="<arg_key>", before_value="</arg_key>\n<arg_value>", after_value="</arg_value>\n"),
    ),
)

GLM4_7 = Family(
    name="glm4_7",
    markers=_GLM_MARKERS,
    thinking=_THINK,
    calls=CallForm(
        trigger="<tool_call>",
        head="",
        joint="",
        tail="",
        closing="</tool_call>",
        arguments=ArgumentForm.TAGGED,
        tags=Tags(before_key="<arg_key>", before_value="</arg_key><arg_value>", after_value="</arg_value>"),
    ),
)

KIMI_K2 = Family(
    name="kimi_k2",
    markers=(
        *_THINK_MARKERS,
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ),
    thinking=_THINK,
    calls=CallForm(
        trigger="<|tool_calls_section_begin|>",
        head="<|tool_call_begin|>functions.",
        joint=f":{NUMBER}<|tool_call_argument_begin|>",
        tail="<|tool_call_end|>",
        separator="",
        closing="<|tool_calls_section_end|>",
    ),
)

MINIMAX_M2 = Family(
    name="minimax_m2",
    markers=(*_THINK_MARKERS, "<minimax:tool_call>", "</minimax:tool_call>"),
    thinking=_THINK,
    calls=CallForm(
        trigger="<minimax:tool_call>",
        opening="\n",
        head='<invoke name="',
        joint='">\n',
        tail="</invoke>\n",
        separator="",
        closing="</minimax:tool_call>",
        arguments=ArgumentForm.TAGGED,
        tags=Tags(before_key='<parameter name="', before_value='">', after_value="</parameter>\n"),
    ),
)

GPT_OSS = Family(
    name="gpt_oss",
    markers=("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>", "<|call|>", "<|return|>"),
    thinking=Region(opening="<|channel|>analysis<|message|>", closing="<|end|>", after="<|start|>assistant"),
    answer=Region(opening="<|channel|>final<|message|>", closing="<|end|>", after="<|start|>assistant"),
    asides=("<|channel|>commentary<|message|>",),
    calls=CallForm(
        trigger="<|channel|>commentary to=functions.",
        head="",
        joint=" <|constrain|>json<|message|>",
        tail="",
        closing="<|call|>",
        other_joints=(" json<|message|>", "<|message|>"),
        custom_head="",
        custom_joint="<|message|>",
        custom_tail="",
    ),
)

GEMMA4 = Family(
    name="gemma4",
    markers=("<|tool_call>", "<tool_call|>", "<|channel>", "<channel|>", '<|"|>'),
    thinking=Region(opening="<|channel>thought\n", closing="<channel|>"),
    calls=CallForm(
        trigger="<|tool_call>",
        head="call:",
        joint="",
        tail="",
        closing="<tool_call|>",
        arguments=ArgumentForm.BRACED,
        quote='<|"|>',
    ),
)

LFM2 = Family(
    name="lfm2",
    markers=("<|tool_call_start|>", "<|tool_call_end|>", *_THINK_MARKERS),
    thinking=_THINK,
    calls=CallForm(
        trigger="<|tool_call_start|>",
        opening="[",
        head="",
        joint="(",
        tail=")",
        separator=", ",
        ending="]",
        closing="<|tool_call_end|>",
        arguments=ArgumentForm.PYTHON,
    ),
)

PLAIN = Family(name="plain")

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        HERMES,
        GENERIC,
        QWEN3_CODER,
        LLAMA3,
        MISTRAL,
        MISTRAL_NAMED,
        DEEPSEEK_V3,
        DEEPSEEK_V3_1,
        GLM4_5,
        GLM4_7,
        KIMI_K2,
        MINIMAX_M2,
        GPT_OSS,
        GEMMA4,
        LFM2,
        PLAIN,
    )
}
