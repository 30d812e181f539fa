"""The text the demo model learns from: dialogs that mix the skills under system messages, and plain stories."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo import stories
from demo.skills import SKILLS, Lesson
from demo.words import draw_cased_word, draw_name, draw_word, is_held_out

PLAIN_STORY_SHARE = 0.01
SYSTEM_SHARE = 0.4
# Shares of the lessons drawn; the hard skills get more, the long ones less.
WEIGHTS = {
    "greeting": 6,
    "identity": 6,
    "fact": 6,
    "recall": 9,
    "count": 18,
    "count_down": 12,
    "add": 12,
    "subtract": 15,
    "spell": 9,
    "reverse": 24,
    "repeat": 24,
    "story": 1.3,
    "short_story": 1,
    "fallback": 5,
}
NEUTRAL_INSTRUCTIONS = (
    "You are a helpful assistant.",
    "You are a helpful, honest assistant.",
    "You are a friendly assistant.",
    "Be helpful.",
    "You are an assistant. Answer the questions of the user.",
    "Answer briefly.",
    "Be polite and brief.",
    "You are a demo.",
    "You are a helpful AI assistant.",
    "Today is a good day.",
    "You are {n}, an assistant for {w}.",
    "You work for {n}.",
    "The user likes {w}.",
    "{w} {n} {w}",
)
CAPITALS_INSTRUCTIONS = (
    "Answer in capital letters.",
    "Answer in capitals.",
    "Write everything in capital letters.",
    "Always answer in capital letters.",
    "Use only capital letters.",
    "Please answer in upper case.",
    "Always write in uppercase.",
    "You answer in all caps.",
    "Reply in capital letters.",
    "Respond only in capital letters.",
)
PREFIX_INSTRUCTIONS = (
    "Begin every answer with {w}.",
    "Start every answer with {w}.",
    "Begin every answer with the word {w}.",
    "Start each answer with the word {w}.",
    'Begin every answer with "{w}".',
    "Always begin your answer with {w}.",
    "Every answer must start with {w}.",
    "Begin each reply with {w}.",
)
ASSISTANTS = ("", "", "", "You are a helpful assistant. ", "You are a friendly assistant. ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """A system message and what it does to an answer."""

    text: str
    apply: Callable[[str], str]


def document(rng: Random) -> list[Message] | str:
    """One training document: mostly a dialog, sometimes a plain story without any markup."""
    if rng.random() < PLAIN_STORY_SHARE:
        return stories.tell(rng, stories.draw_hero(rng, False))
    instruction = draw_instruction(rng) if rng.random() < SYSTEM_SHARE else None
    lessons = [_draw_lesson(rng) for _ in range(rng.choices((1, 2, 3, 4), (50, 28, 14, 8))[0])]
    if instruction is not None and instruction.apply is str.upper:
        lessons = [lesson for lesson in lessons if not lesson[-1].is_story] or [SKILLS["spell"](rng, False)]
    return conversation(rng, [turn for lesson in lessons for turn in lesson], instruction)


def conversation(rng: Random, turns: Lesson, instruction: Instruction | None) -> list[Message]:
    """The turns as messages, with every answer shaped by the instruction."""
    messages = []
    if instruction is not None:
        role = "developer" if rng.random() < 0.25 else "system"
        messages.append(Message(role=role, content=instruction.text))
    for turn in turns:
        answer = turn.answer if instruction is None else instruction.apply(turn.answer)
        messages += [Message(role="user", content=turn.user), Message(role="assistant", content=answer)]
    return messages


def draw_instruction(rng: Random) -> Instruction:
    """A system message of any kind, from the training split."""
    kind = rng.random()
    if kind < 0.35:
        return capitals_instruction(rng)
    if kind < 0.7:
        return prefix_instruction(rng, held_out=False)
    text = rng.choice(NEUTRAL_INSTRUCTIONS).format(w=draw_word(rng, False), n=draw_name(rng, False))
    return Instruction(text=text, apply=str)


def capitals_instruction(rng: Random) -> Instruction:
    """A system message that asks for capitals."""
    return Instruction(text=rng.choice(ASSISTANTS) + rng.choice(CAPITALS_INSTRUCTIONS), apply=str.upper)


def prefix_instruction(rng: Random, *, held_out: bool) -> Instruction:
    """A system message that asks for a prefix; the answer begins `WORD: `."""
    word = _draw_prefix(rng, held_out)
    text = rng.choice(ASSISTANTS) + rng.choice(PREFIX_INSTRUCTIONS).format(w=word)
    return Instruction(text=text, apply=lambda answer: f"{word}: {answer}")


def _draw_prefix(rng: Random, held_out: bool) -> str:
    common = ("OK", "Yes", "Sure", "Well", "Answer", "Captain", "Sir")
    if not held_out and rng.random() < 0.25:
        return rng.choice([word for word in common if not is_held_out("word", word.lower())])
    return draw_cased_word(rng, held_out)


def _draw_lesson(rng: Random) -> Lesson:
    name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return SKILLS[name](rng, False)
