"""instructor: in tool modes and by a schema of the answer. Prints `ok`."""

import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field


class Forecast(BaseModel):
    """A forecast, and nothing else: instructor does not close its schemas."""

    model_config = ConfigDict(extra="forbid")
    day: int = Field(ge=1, le=7)
    is_long: bool


client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    made = instructor.from_openai(client, mode=mode).chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Tomorrow?"}],
        response_model=Forecast,
        max_retries=0,
    )
    assert isinstance(made, Forecast), (mode, made)
sys.stdout.write("ok\n")
