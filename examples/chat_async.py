"""Many chats at once on an event loop; the platform runs them together."""

import asyncio
import os

from openai import AsyncOpenAI

QUESTIONS = ["Spell the word apple.", "What is 12 plus 30?", "Count from 3 to 9.", "Reverse the word star."]


async def main() -> None:
    client = AsyncOpenAI(
        base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
    )
    model = os.environ.get("TOKENPOST_MODEL", "demo")

    async def ask(question: str) -> str:
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0
        )
        return answer.choices[0].message.content or ""

    for question, answer in zip(QUESTIONS, await asyncio.gather(*map(ask, QUESTIONS)), strict=True):
        print(question, "->", answer)


asyncio.run(main())
