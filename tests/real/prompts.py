"""Two hundred prompts for a small model: a hundred chats and a hundred beginnings of a text."""

from itertools import product

_TOPICS = (
    "rain", "the Moon", "bread", "a bicycle", "prime numbers", "honey bees", "Paris", "the violin", "gravity", "tea",
    "volcanoes", "chess", "penguins", "steam engines", "the alphabet", "salt", "maps", "oak trees", "sleep", "glass",
)  # fmt: skip
_QUESTIONS = (
    "What is {}?",
    "Name two facts about {}.",
    "Schreibe einen Satz über {}.",
    "Write a line of Python about {}",
    "Say it in one word: {} 🙂",
)
_BEGINNINGS = (
    "The most surprising thing about {} is",
    "Q: Why {}?\nA:",
    "def describe():\n    # {}\n    return",
    "1. {}\n2.",
    "Once upon a time, {} ",
)
_SYSTEMS = (None, "Be brief.", "You are a pirate.\nAnswer in rhymes.")

CHATS = [
    [
        *([] if system is None else [{"role": "system", "content": system}]),
        *([{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}] if number % 4 == 3 else []),
        {"role": "user", "content": question.format(topic)},
    ]
    for number, (topic, question) in enumerate(product(_TOPICS, _QUESTIONS))
    for system in [_SYSTEMS[number % 3]]
]
BEGINNINGS = [beginning.format(topic) for topic, beginning in product(_TOPICS, _BEGINNINGS)]
