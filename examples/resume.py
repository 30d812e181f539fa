"""Leave a stream and take it up where it was left: the job runs on, and no event is lost or repeated."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
)
model = os.environ.get("TOKENPOST_MODEL", "smollm2")

job_id, last, text = "", -1, ""
for event in client.responses.create(
    model=model, input="Tell me a story.", temperature=0.2, max_output_tokens=200, background=True, stream=True
):
    last = event.sequence_number
    if event.type == "response.created":
        job_id = event.response.id
    if event.type == "response.output_text.delta":
        text += event.delta
    if last == 10:
        break  # as if the network had gone

print(f"left {job_id} after event {last}: {text!r}")
for event in client.responses.retrieve(job_id, stream=True, starting_after=last):
    if event.type == "response.output_text.delta":
        text += event.delta

whole = client.responses.retrieve(job_id).output_text
print(whole)
assert text == whole, "the two parts are the whole"
