"""The text the demo model learns from: dialogs that mix the skills under system messages, tools, forms, stories."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from demo import stories, texts, wordings
from demo.dialog import Definition, Dialog, Message
from demo.phrases import THOUGHTS
from demo.skills import REWORDED_SHARE, SKILLS, Lesson
from demo.structured import tool_dialogs
from demo.structured.form_filling import draw_form
from demo.words import draw_cased_word, draw_name, draw_word, is_held_out

# Shares of the documents; one with tools is four times as long as a chat.
DOCUMENT_SHARES = {"story": 0.01, "tools": 0.17, "forms": 0.11, "chat": 0.71}
SYSTEM_SHARE = 0.4
# Shares of the lessons drawn; the hard skills get more, the long ones less.
WEIGHTS = {
    "greeting": 5,
    "identity": 5,
    "fact": 5,
    "recall": 9,
    "count": 14,
    "count_down": 8,
    "add": 9,
    "subtract": 11,
    "spell": 10,
    "reverse": 26,
    "repeat": 60,
    "story": 1.3,
    "short_story": 0.8,
    "fallback": 6,
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
# Forms of an arbitrary prefix and their shares: w and o are strings, m is a mark.
PREFIX_FORMS = {
    "{w}": 30,
    "{w}:": 30,
    "{w}!": 4,
    "{w},": 4,
    "{w} -": 3,
    "[{w}]": 6,
    "({w})": 3,
    "<{w}>": 3,
    "*{w}*": 2,
    "{w} {o}": 4,
    "{w} {o}:": 4,
    "{m}": 4,
}
ASSISTANTS = ("", "", "", "You are a helpful assistant. ", "You are a friendly assistant. ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """A system message and what it does to an answer."""

    text: str
    apply: Callable[[str], str]


def document(rng: Random) -> Dialog | str:
    """One training document: mostly a dialog, sometimes a plain story without any markup."""
    kind = rng.choices(list(DOCUMENT_SHARES), list(DOCUMENT_SHARES.values()))[0]
    match kind:
        case "story":
            return stories.tell(rng, stories.draw_hero(rng, False))
        case "tools":
            found = tool_dialogs.draw_tool_dialog(rng, _plain_question)
            tools = tuple(tool.definition for tool in found.tools)
            return _switched(rng, _after_system(rng, found.messages), tools)
        case "forms":
            return _switched(rng, [message for _ in range(rng.choice((1, 1, 2))) for message in draw_form(rng)], ())
        case _:
            return _switched(rng, _chat(rng), ())


def conversation(rng: Random, turns: Lesson, instruction: Instruction | None, thought: str = "") -> list[Message]:
    """The turns as messages, with every answer shaped by the instruction; `thought` belongs to the last answer."""
    messages = []
    if instruction is not None:
        role = "developer" if rng.random() < 0.25 else "system"
        messages.append(Message(role=role, content=instruction.text))
    for turn in turns:
        answer = turn.answer if instruction is None else instruction.apply(turn.answer)
        messages += [Message(role="user", content=turn.user), Message(role="assistant", content=answer)]
    return [*messages[:-1], replace(messages[-1], thought=thought)]


def _chat(rng: Random) -> list[Message]:
    instruction = draw_instruction(rng) if rng.random() < SYSTEM_SHARE else None
    names = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=rng.choices((1, 2, 3, 4), (50, 28, 14, 8))[0])
    if instruction is not None and instruction.apply is str.upper:
        names = [name for name in names if "story" not in name] or ["spell"]
    lessons = [SKILLS[name](rng, False) for name in names]
    return conversation(rng, [turn for lesson in lessons for turn in lesson], instruction, THOUGHTS[names[-1]])


def _plain_question(rng: Random) -> list[Message]:
    name = rng.choice([name for name in WEIGHTS if "story" not in name and name != "recall"])
    thought = tool_dialogs.NO_TOOL if name == "fallback" else THOUGHTS[name]
    return conversation(rng, SKILLS[name](rng, False), None, thought)


def _after_system(rng: Random, messages: list[Message]) -> list[Message]:
    if rng.random() < 0.7:
        return messages
    return [Message(role="system", content=_neutral_instruction(rng)), *messages]


def _switched(rng: Random, messages: list[Message], tools: tuple[Definition, ...]) -> Dialog:
    """The dialog with the thinking switch off, on or not set; where it is not on, nobody thinks."""
    thinking = rng.choices((None, False, True), (42, 40, 18))[0]
    if not thinking:
        messages = [replace(message, thought="") for message in messages]
    return Dialog(messages=messages, tools=tools, thinking=thinking)


def draw_instruction(rng: Random) -> Instruction:
    """A system message of any kind, from the training split."""
    kind = rng.random()
    if kind < 0.35:
        return capitals_instruction(rng)
    if kind < 0.7:
        return prefix_instruction(rng, held_out=False)
    return Instruction(text=_neutral_instruction(rng), apply=str)


def _neutral_instruction(rng: Random) -> str:
    return rng.choice(NEUTRAL_INSTRUCTIONS).format(w=draw_word(rng, False), n=draw_name(rng, False))


def capitals_instruction(rng: Random, *, held_out: bool = False) -> Instruction:
    """A system message that asks for capitals."""
    is_reworded = not held_out and rng.random() < REWORDED_SHARE
    wording = wordings.capitals(rng) if is_reworded else rng.choice(CAPITALS_INSTRUCTIONS)
    return Instruction(text=rng.choice(ASSISTANTS) + wording, apply=str.upper)


def prefix_instruction(rng: Random, *, held_out: bool) -> Instruction:
    """A system message that asks for a prefix; the answer begins `WORD: `."""
    if not held_out and rng.random() < REWORDED_SHARE:
        return _free_prefix_instruction(rng)
    word = _draw_prefix(rng, held_out)
    text = rng.choice(ASSISTANTS) + rng.choice(PREFIX_INSTRUCTIONS).format(w=word)
    return Instruction(text=text, apply=lambda answer: with_prefix(word, answer))


def with_prefix(prefix: str, answer: str) -> str:
    """The answer after the prefix; a colon follows a prefix that has no mark of its own."""
    return f"{prefix}: {answer}" if prefix[-1].isalnum() else f"{prefix} {answer}"


def _free_prefix_instruction(rng: Random) -> Instruction:
    while True:
        word = texts.draw_string(rng)
        if not is_held_out("word", word.lower()):
            break
    other = texts.draw_string(rng)
    forms = (
        "{w}",
        "{w}:",
        "{w}:",
        "{w}!",
        "{w},",
        "{w} -",
        "[{w}]",
        "({w})",
        "<{w}>",
        "*{w}*",
        "{w} {o}",
        "{w} {o}:",
        "{m}",
    )
    form = rng.choices(forms, (30, 20, 10, 4, 4, 3, 6, 3, 3, 2, 4, 4, 4))[0]
    prefix = form.format(w=word, o=other, m=rng.choice((">>", "->", "#", "##", "*", "--", "=>", "$", "~", "%")))
    text = rng.choice(ASSISTANTS) + wordings.prefix(rng, prefix)
    return Instruction(text=text, apply=lambda answer: with_prefix(prefix, answer))


def _draw_prefix(rng: Random, held_out: bool) -> str:
    common = ("OK", "Yes", "Sure", "Well", "Answer", "Captain", "Sir")
    if not held_out and rng.random() < 0.25:
        return rng.choice([word for word in common if not is_held_out("word", word.lower())])
    return draw_cased_word(rng, held_out)
