"""A second question that knows the first: only its own words are sent again."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
)
model = os.environ.get("TOKENPOST_MODEL", "smollm2")

first = client.responses.create(model=model, input="My name is Anna.", temperature=0)
print(first.output_text)
second = client.responses.create(model=model, input="What is my name?", previous_response_id=first.id, temperature=0)
print(second.output_text)
