"""One answer, the shortest way."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
)
model = os.environ.get("TOKENPOST_MODEL", "smollm2")

response = client.responses.create(model=model, input="Hello! Who are you?", temperature=0.2)
print(response.output_text)
