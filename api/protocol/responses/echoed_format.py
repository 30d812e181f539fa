"""The `text.format` that a Response object repeats."""

from collections.abc import Mapping
from typing import cast


def echoed_format(sent: Mapping[str, object]) -> dict[str, object]:
    """The format of the request, in the form of Responses, with a boolean `strict` and a schema.

    A format by a name that OpenAI does not have is shown as plain text.
    """
    text = cast(Mapping[str, object], sent.get("text") or {})
    asked = cast(dict[str, object], text.get("format") or sent.get("response_format") or {"type": "text"})
    if asked["type"] != "json_schema":
        return asked
    flat = asked.get("json_schema", asked)
    shown = {"type": "json_schema", **cast(dict[str, object], flat)}
    return {**shown, "schema": shown.get("schema") or {"type": "object"}, "strict": shown.get("strict") is True}
