"""Chat templates that take tools in different ways, and a chat with calls."""

from api.protocol.prompt.system_turn import Message
from api.protocol.prompt.tool_declaration import ToolDeclaration
from tests.protocol.examples import CHATML

_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_DECLARED = (
    "{% if tools %}<|im_start|>system\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}"
)
# As those of Qwen: arguments are objects, and several calls stand behind a text.
HERMES = (
    _DECLARED
    + "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    + "{% for call in message.tool_calls %}<tool_call>\n"
    + '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    + "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    + _END
)
# As those of Mistral and DeepSeek V3: arguments are text, ids have nine characters, a message is text or calls.
STRICT = (
    _DECLARED
    + "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    + "{% if message.role == 'assistant' and message.content is none %}{% for call in message.tool_calls %}"
    + "{% if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    + "{{ call.id + ' ' + call.function.name + ' ' + call.function.arguments + '\n' }}{% endfor %}"
    + "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
    + _END
)
# As those of Kimi and Llama 3.1: the id names the function, a message holds one call, a tool has a description.
SINGLE = (
    "{% for tool in tools or [] %}{{ tool.function.name + ': ' + tool.function.description }}"
    "{{ tool.function.parameters | tojson }}\n{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls %}{% if message.tool_calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}"
    "{{ message.tool_calls[0].id }} {{ message.tool_calls[0].function.arguments | tojson }}{% endif %}"
    "{% if message.tool_call_id %}result of {{ message.tool_call_id }}{% endif %}<|im_end|>\n{% endfor %}" + _END
)
# Arguments are printed as Python shows an object, so it is given text; calls are shown, tools are not.
PRINTING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}{{ call.function.name }} {{ call.function.arguments }}{% endfor %}"
    "<|im_end|>\n{% endfor %}" + _END
)
IGNORANT = CHATML

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TOOLS = ToolDeclaration(functions=(WEATHER,))


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def calling(*calls: Message, text: str | None = None) -> Message:
    return {"role": "assistant", "content": text, "tool_calls": list(calls)}


def call(call_id: str, arguments: str, name: str = "weather") -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def custom_call(call_id: str, text: str, name: str = "shell") -> Message:
    return {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}}


def result(call_id: str, text: str, name: str = "weather") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": text}


CHAT = [
    user("Oslo and Lima?"),
    calling(call("call_1", '{"city":"Oslo"}'), call("call_2", '{"city":"Lima"}'), text="Let me look."),
    result("call_1", "rain"),
    result("call_2", "sun"),
    user("And now?"),
]
