"""langchain-openai: `bind_tools`, results, and `with_structured_output` in both of its ways. Prints `ok`."""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr


class Forecast(BaseModel):
    """A forecast."""

    day: int = Field(ge=1, le=7)
    is_long: bool


@tool
def forecast(day: bool, unit: bool) -> str:
    """A forecast of the weather."""
    return f"rain ({day}, {unit})"


model = ChatOpenAI(model="demo", base_url=sys.argv[1], api_key=SecretStr("none"), max_retries=0)

bound = model.bind_tools([forecast], tool_choice="any", parallel_tool_calls=False)
question = HumanMessage("What is the weather?")
answer = bound.invoke([question])
(call,) = answer.tool_calls
assert call["name"] == "forecast", answer
result = forecast.invoke(call)
assert isinstance(result, ToolMessage), result
last = model.bind_tools([forecast], tool_choice="none").bind(max_tokens=20).invoke([question, answer, result])
assert not last.tool_calls, last

whole = None
for chunk in bound.stream([question]):
    whole = chunk if whole is None else whole + chunk
assert whole is not None
assert whole.tool_calls[0]["name"] == "forecast", whole  # type: ignore[attr-defined] # a chunk of a message of an AI

for method in ("function_calling", "json_schema"):
    made = model.with_structured_output(Forecast, method=method).invoke("Tomorrow?")  # type: ignore[arg-type] # a literal
    assert isinstance(made, Forecast), (method, made)
sys.stdout.write("ok\n")
