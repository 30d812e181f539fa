"""Many chats at once on an event loop; the platform runs them together."""

import asyncio
import os

from openai import AsyncOpenAI

QUESTIONS = ["What is the capital of France?", "Name three colors.", "Spell the word apple.", "Count from 3 to 9."]


async def main() -> None:
    client = AsyncOpenAI(
        base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
    )
    model = os.environ.get("TOKENPOST_MODEL", "smollm2")

    async def ask(question: str) -> str:
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0
        )
        return answer.choices[0].message.content or ""

    for question, answer in zip(QUESTIONS, await asyncio.gather(*map(ask, QUESTIONS)), strict=True):
        print(question, "->", answer)


asyncio.run(main())
