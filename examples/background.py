"""Post now, poll later; and take back what is not wanted any more."""

import os
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
)
model = os.environ.get("TOKENPOST_MODEL", "smollm2")

job = client.responses.create(
    model=model, input="Tell me a story.", temperature=0.2, max_output_tokens=200, background=True
)
print("posted", job.id, job.status)
while job.status in ("queued", "in_progress"):
    time.sleep(0.2)
    job = client.responses.retrieve(job.id)
    print(job.status, len(job.output_text), "characters so far")
print(job.output_text)

unwanted = client.responses.create(
    model=model, input="Tell me a story.", temperature=0.2, max_output_tokens=200, background=True
)
print(client.responses.cancel(unwanted.id).status)
