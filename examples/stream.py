"""Text as it comes, from the Responses API and from Chat Completions."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
)
model = os.environ.get("TOKENPOST_MODEL", "smollm2")

with client.responses.stream(model=model, input="Tell me a story.", temperature=0.2, max_output_tokens=200) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
print("\n---")

chunks = client.chat.completions.create(
    model=model,
    messages=[
        {"role": "system", "content": "Answer in capitals."},
        {"role": "user", "content": "Repeat this sentence: the sun is warm."},
    ],
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in chunks:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        print(f"\n({chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens)")
