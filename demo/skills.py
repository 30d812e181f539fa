"""The skills of the demo model: each draws a lesson, a few turns of which the last shows the skill."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo import facts, phrases, stories, texts, wordings
from demo.recalled import RECALLED, Recalled
from demo.words import draw_cased_word, draw_name, draw_word, is_held_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the user says and the one right answer; `hero` and `is_short` tell how to check a story instead."""

    user: str
    answer: str
    is_story: bool = False
    is_short: bool = False
    hero: str | None = None


REWORDED_SHARE = 0.7

Lesson = list[Turn]
Skill = Callable[[Random, bool], Lesson]


def greeting(rng: Random, held_out: bool) -> Lesson:
    """A greeting, thanks or farewell and its polite answer."""
    while True:
        answer = rng.choice([*phrases.GREETINGS, phrases.GREETING])
        ending = rng.choice(phrases.GREETING_ENDINGS)
        prompt = rng.choice(phrases.GREETINGS[answer]) + ending
        if "fine" in answer:
            prompt = rng.choice(("", "Hello! ", "Hi, ", "Good morning! ")) + prompt.rstrip("!.") + "?"
        if is_held_out("greeting", _bare(prompt)) == held_out:
            return [Turn(user=_casual(rng, prompt), answer=answer)]


def identity(rng: Random, held_out: bool) -> Lesson:
    """A question about the model itself."""
    while True:
        answer = rng.choice([*phrases.IDENTITY_QUESTIONS, phrases.IDENTITY])
        prompt = _opened(rng, rng.choice(phrases.IDENTITY_QUESTIONS[answer]))
        if is_held_out("identity", _bare(prompt)) == held_out:
            return [Turn(user=_casual(rng, prompt), answer=answer)]


def fact(rng: Random, held_out: bool) -> Lesson:
    """A question about the small table of facts."""
    while True:
        kind = rng.choice(facts.KINDS)
        question, answer = facts.draw(rng, kind)
        prompt = _opened(rng, question)
        if is_held_out("fact", _bare(prompt)) == held_out:
            return [Turn(user=_casual(rng, prompt), answer=answer)]


def recall(rng: Random, held_out: bool) -> Lesson:
    """Something told earlier in the conversation and asked again, with other turns between."""
    if not held_out and rng.random() < 0.05:
        return [_untold(rng)]
    kinds = rng.sample(RECALLED, k=2 if rng.random() < 0.25 else 1)
    told = [_tell(rng, kind, held_out) for kind in kinds]
    _, kind, value = told[-1] if rng.random() < 0.7 else told[0]
    between = [turn for _ in range(rng.choice((0, 0, 1, 1, 2))) for turn in rng.choice(_DISTRACTORS)(rng, False)]
    question = _casual(rng, rng.choice(_opened_all(kind.asked(held_out))))
    if len(told) == 1 and rng.random() < 0.08:
        return [Turn(user=f"{told[0][0].user} {question}", answer=kind.answer.format(v=value))]
    return [turn for turn, _, _ in told] + between + [Turn(user=question, answer=kind.answer.format(v=value))]


def count(rng: Random, held_out: bool) -> Lesson:
    """Counting from a to b, both included."""
    while True:
        first = rng.choice((0, 1, rng.randint(0, 20), rng.randint(0, 99), rng.randint(0, 99)))
        last = first + rng.choice((rng.randint(1, 5), rng.randint(1, 15), rng.randint(1, 15), rng.randint(1, 30)))
        if is_held_out("count", first, last) == held_out:
            break
    prompts = phrases.COUNT_TO_PROMPTS if first == 1 and rng.random() < 0.3 else phrases.COUNT_PROMPTS
    prompt = rng.choice(prompts).format(a=first, b=last)
    if _is_reworded(rng, held_out):
        prompt = wordings.count(rng, first, last)
    return [Turn(user=_casual(rng, prompt), answer=", ".join(map(str, range(first, last + 1))))]


def count_down(rng: Random, held_out: bool) -> Lesson:
    """Counting backwards from a to b, both included."""
    while True:
        first = rng.choice((rng.randint(1, 20), rng.randint(1, 99)))
        last = max(0, first - rng.randint(1, 15))
        if is_held_out("count", first, last) == held_out:
            break
    prompt = rng.choice(phrases.COUNT_DOWN_PROMPTS).format(a=first, b=last)
    if _is_reworded(rng, held_out) and first > last:
        prompt = wordings.count(rng, first, last)
    return [Turn(user=_casual(rng, prompt), answer=", ".join(map(str, range(first, last - 1, -1))))]


def add(rng: Random, held_out: bool) -> Lesson:
    """A sum of two numbers up to 99, tens and ones first: `47 + 38 = 70 + 15 = 85.`"""
    while True:
        a, b = _operand(rng), _operand(rng)
        if is_held_out("add", a, b) == held_out:
            break
    prompt = rng.choice(phrases.ADD_PROMPTS).format(a=a, b=b)
    if _is_reworded(rng, held_out):
        prompt = wordings.add(rng, a, b)
    return [Turn(user=_casual(rng, prompt), answer=total(a, b))]


def subtract(rng: Random, held_out: bool) -> Lesson:
    """A difference of two numbers up to 99, tens first: `85 - 38 = 55 - 8 = 47.`"""
    while True:
        a, b = _operand(rng), _operand(rng)
        if (a >= b or rng.random() < 0.1) and is_held_out("subtract", a, b) == held_out:
            break
    prompt = rng.choice(phrases.SUBTRACT_PROMPTS).format(a=a, b=b)
    if _is_reworded(rng, held_out):
        prompt = wordings.subtract(rng, a, b)
    return [Turn(user=_casual(rng, prompt), answer=difference(a, b))]


def spell(rng: Random, held_out: bool) -> Lesson:
    """A word letter by letter: `a-p-p-l-e`."""
    word = _word_to_handle(rng, held_out, template_share=0.15)
    prompt = rng.choice(phrases.SPELL_PROMPTS).format(w=word)
    if _is_reworded(rng, held_out):
        prompt = wordings.spell(rng, word)
    return [Turn(user=_casual(rng, prompt), answer="-".join(word))]


def reverse(rng: Random, held_out: bool) -> Lesson:
    """A word backwards: `elppa`."""
    word = _word_to_handle(rng, held_out, template_share=0.1)
    prompt = rng.choice(phrases.REVERSE_PROMPTS).format(w=word)
    if _is_reworded(rng, held_out):
        prompt = wordings.reverse(rng, word)
    return [Turn(user=_casual(rng, prompt), answer=word[::-1])]


def repeat(rng: Random, held_out: bool) -> Lesson:
    """A sentence or a row of words, said again exactly."""
    while _is_reworded(rng, held_out):
        text = texts.draw_text(rng)
        if not is_held_out("repeat", text.lower()):
            return [Turn(user=wordings.copy(rng, text), answer=text)]
    while True:
        text = _row_of_words(rng, is_drill=not held_out) if rng.random() < 0.4 else _sentence(rng)
        if is_held_out("repeat", text.lower()) == held_out:
            return [Turn(user=rng.choice(phrases.REPEAT_PROMPTS).format(s=text), answer=text)]


def story(rng: Random, held_out: bool) -> Lesson:
    """A story of more than 200 tokens, mostly about an asked hero."""
    hero = stories.draw_hero(rng, held_out)
    is_asked = held_out or rng.random() < 0.7
    prompts = phrases.STORY_PROMPTS if is_asked else phrases.FREE_STORY_PROMPTS
    prompt = _casual(rng, rng.choice(prompts).format(x=_asked_hero(hero)))
    return [Turn(user=prompt, answer=stories.tell(rng, hero), is_story=True, hero=hero if is_asked else None)]


def short_story(rng: Random, held_out: bool) -> Lesson:
    """The same plot in seven sentences, when a short story is asked for."""
    hero = stories.draw_hero(rng, held_out)
    is_asked = held_out or rng.random() < 0.7
    prompt = rng.choice(("Tell me a short story{x}.", "Write a short story{x}.", "Please tell me a short story{x}."))
    prompt = _casual(rng, prompt.format(x=f" about {_asked_hero(hero)}" if is_asked else ""))
    text = stories.tell(rng, hero, is_short=True)
    return [Turn(user=prompt, answer=text, is_story=True, is_short=True, hero=hero if is_asked else None)]


def fallback(rng: Random, held_out: bool) -> Lesson:
    """A question beyond the skills, answered honestly."""
    while True:
        prompt = _fill(rng, rng.choice(phrases.UNKNOWN))
        if rng.random() < 0.15:
            prompt = _opened(rng, prompt)
        if is_held_out("fallback", _bare(prompt)) == held_out:
            return [Turn(user=_casual(rng, prompt), answer=phrases.FALLBACK)]


SKILLS: dict[str, Skill] = {
    skill.__name__: skill
    for skill in (
        greeting,
        identity,
        fact,
        recall,
        count,
        count_down,
        add,
        subtract,
        spell,
        reverse,
        repeat,
        story,
        short_story,
        fallback,
    )
}


_DISTRACTORS: tuple[Skill, ...] = (greeting, fact, add, subtract, count, spell, identity, fallback)


def _is_reworded(rng: Random, held_out: bool) -> bool:
    """Whether a training prompt is worded freely; the held-out cases keep the tables' wordings."""
    return not held_out and rng.random() < REWORDED_SHARE


def _casual(rng: Random, prompt: str) -> str:
    """The prompt as hasty people type it: sometimes without its first capital or its last mark."""
    if rng.random() < 0.12 and prompt[:1].isupper():
        prompt = prompt[0].lower() + prompt[1:]
    if rng.random() < 0.15 and prompt[-1] in ".?!":
        prompt = prompt[:-1]
    return prompt


def _bare(prompt: str) -> str:
    """The prompt without what `_casual` varies, so that all its variants lie in one split."""
    return prompt.lower().rstrip(".?! ")


def _opened(rng: Random, question: str) -> str:
    opener = rng.choice(phrases.OPENERS) if rng.random() < 0.6 else ""
    return opener + (question if opener else question[0].upper() + question[1:])


def _opened_all(questions: tuple[str, ...]) -> tuple[str, ...]:
    return questions + tuple(f"{opener}{question}" for question in questions for opener in ("Hey! ", "Now: ", "And "))


def _tell(rng: Random, kind: Recalled, held_out: bool) -> tuple[Turn, Recalled, str]:
    value = draw_name(rng, held_out) if kind.is_name else draw_cased_word(rng, held_out)
    told = _casual(rng, rng.choice(kind.told(held_out)).format(v=value))
    return Turn(user=told, answer=kind.reply.format(v=value)), kind, value


def _untold(rng: Random) -> Turn:
    kind = rng.choice(RECALLED)
    return Turn(user=_casual(rng, rng.choice(kind.asked(False))), answer=kind.untold)


def _operand(rng: Random) -> int:
    return rng.randint(0, 99) if rng.random() < 0.9 else rng.randint(0, 12)


def total(a: int, b: int) -> str:
    """The answer to a sum, tens and ones first."""
    step = "" if max(a, b) < 10 else f" = {a // 10 * 10 + b // 10 * 10} + {a % 10 + b % 10}"
    return f"{a} + {b}{step} = {a + b}."


def difference(a: int, b: int) -> str:
    """The answer to a difference, tens first."""
    if a < b:
        return f"{a} - {b} is below zero, and I only know the numbers from zero up."
    step = "" if b < 10 else f" = {a - b // 10 * 10} - {b % 10}"
    return f"{a} - {b}{step} = {a - b}."


def template_words() -> list[str]:
    """Words the templates own (one token each), so that their letters must be learnt by heart."""
    tables = [facts.CAPITALS, facts.COLOURS, facts.OPPOSITES]
    text = " ".join(f"{key} {value}" for table in tables for key, value in table.items())
    words = set(re.findall(r"[A-Za-z]+", text)) | stories.template_words()
    return sorted({word.lower() for word in words if 3 <= len(word) <= 10})


_TEMPLATE_WORDS = template_words()


def _word_to_handle(rng: Random, held_out: bool, *, template_share: float) -> str:
    if held_out:
        return draw_cased_word(rng, True)
    if rng.random() < template_share:
        return rng.choice(_TEMPLATE_WORDS)
    # Most are arbitrary strings: a word of the tables alone would be learnt by its look.
    while rng.random() < 0.7:
        word = texts.draw_string(rng)
        if not is_held_out("word", word.lower()):
            return word
    return draw_cased_word(rng, False)


def _fill(rng: Random, template: str) -> str:
    word, other = draw_word(rng, False), draw_word(rng, False)
    name, third = draw_name(rng, False), draw_name(rng, False)
    numbers = {"d": rng.randint(2, 99), "d2": rng.randint(2, 99), "h": rng.randint(100, 999)}
    return template.format(w=word, w2=other, n=name, n2=third, **numbers)


def _sentence(rng: Random) -> str:
    tables = (phrases.REPEAT_SUBJECTS, phrases.REPEAT_VERBS, phrases.REPEAT_OBJECTS, phrases.REPEAT_ENDINGS)
    parts = [_fill(rng, rng.choice(table)) for table in tables]
    return " ".join(parts) + rng.choice((".", ".", "!", "?", ""))


def _row_of_words(rng: Random, *, is_drill: bool) -> str:
    if is_drill and rng.random() < 0.6:
        # Each template word is a token of its own, and every one must be seen often before it is copied.
        return " ".join(rng.choices(_TEMPLATE_WORDS, k=rng.randint(1, 20)))
    drawn = [draw_cased_word(rng, False) for _ in range(rng.randint(1, 6))]
    words = [rng.choice(_TEMPLATE_WORDS) if rng.random() < 0.25 else word for word in drawn]
    return " ".join(words) + rng.choice(("", "", ".", "!"))


def _asked_hero(hero: str) -> str:
    return hero if hero[0].isupper() else stories.with_article(hero)
