"""What the client asks for: few distinct requests, so that an undisturbed run can tell what each must come to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MODEL = "demo"
ANIMALS = ("fox", "bear", "cat", "wolf", "hen", "mouse", "owl", "frog")
NUM_TEMPLATES = 8


class Surface(StrEnum):
    """Which protocol a job is asked in: the prompt is rendered, and the answer formatted, in its way."""

    RESPONSE = "response"
    CHAT = "chat"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A way of asking.

    is_stream:  the answer is a stream, which is taken up again when it is cut
    is_polled:  the answer is a receipt, and the job is asked after until it has ended
    is_short:   a few tokens only, asked for at fixed times, to see whether anything goes at all
    """

    path: str
    surface: Surface
    fields: dict[str, Any]  # Any: JSON values
    is_stream: bool = False
    is_polled: bool = False
    is_short: bool = False

    @property
    def is_blocking(self) -> bool:
        """Whether the answer is the outcome."""
        return not self.is_stream and not self.is_polled


_STREAM = {"stream": True}
_STORE = {"store": True}
KINDS = {
    "background stream": Kind(
        path="/responses", surface=Surface.RESPONSE, fields={"background": True, **_STREAM}, is_stream=True
    ),
    "stream": Kind(path="/responses", surface=Surface.RESPONSE, fields=_STREAM, is_stream=True),
    "chat stream": Kind(path="/chat/completions", surface=Surface.CHAT, fields={**_STREAM, **_STORE}, is_stream=True),
    "poll": Kind(path="/responses", surface=Surface.RESPONSE, fields={"background": True}, is_polled=True),
    "async": Kind(path="/async/completions", surface=Surface.COMPLETION, fields={}, is_polled=True),
    "block": Kind(path="/responses", surface=Surface.RESPONSE, fields={}),
    "chat block": Kind(path="/chat/completions", surface=Surface.CHAT, fields=_STORE),
    "probe": Kind(
        path="/responses",
        surface=Surface.RESPONSE,
        fields={"background": True, **_STREAM},
        is_stream=True,
        is_short=True,
    ),
}
# How many of each kind are under way together.
FULL_LOAD = {
    "background stream": 6,
    "stream": 4,
    "chat stream": 4,
    "poll": 4,
    "async": 2,
    "block": 2,
    "chat block": 1,
    "probe": 1,
}
SHORT_LOAD = {"background stream": 4, "stream": 2, "chat stream": 2, "poll": 2, "async": 1, "block": 1, "probe": 1}


def read_path(kind: Kind, job_id: str) -> str:
    """Where a job of this kind is read."""
    return f"{kind.path}/{job_id}"


def body_of(kind: Kind, template: int, num_tokens: int, name: str = "") -> dict[str, Any]:  # Any: JSON values
    """The request. The same for the same template and length, but for the job's name.

    num_tokens: length of every answer but a probe's; stories end where the model likes for every third template
    """
    prompt = f"Tell me a story about a {ANIMALS[template % len(ANIMALS)]}."
    length = 4 if kind.is_short else num_tokens
    body = {"model": MODEL, "temperature": 0.8, "seed": 1000 + template, **kind.fields}
    if template % 3 or kind.is_short:
        body["ignore_eos"] = True
    if kind.surface is Surface.RESPONSE:
        body |= {"input": prompt, "max_output_tokens": length}
    elif kind.surface is Surface.CHAT:
        body |= {"messages": [{"role": "user", "content": prompt}], "max_completion_tokens": length}
    else:
        body |= {"prompt": prompt, "max_tokens": length}
    if name and kind.surface is not Surface.COMPLETION:
        body["metadata"] = {"drill": name}
    return body


def reference_key(kind: Kind, template: int) -> str:
    """What the undisturbed run knows an answer by."""
    return f"{kind.surface}{'-short' if kind.is_short else ''}-{template}"


def text_of(surface: Surface, answer: dict[str, Any]) -> str:  # Any: JSON values
    """The text of an object of any protocol."""
    if surface is Surface.RESPONSE:
        return "".join(part["text"] for item in answer["output"] for part in item["content"])
    choice = answer["choices"][0]
    return (choice["message"]["content"] if surface is Surface.CHAT else choice["text"]) or ""


def usage_of(answer: dict[str, Any]) -> tuple[int, int]:  # Any: JSON values
    """Tokens of prompt and answer, as an object of any protocol tells them."""
    usage = answer["usage"]
    if "input_tokens" in usage:
        return usage["input_tokens"], usage["output_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]
