"""The text of the demo model: held-out prompts stay out, stories are checked, tokens round-trip."""

import json
import re
from pathlib import Path
from random import Random

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from demo import corpus, stories, unseen_wordings
from demo.dialog import Dialog
from demo.evaluation import OTHER_SKILLS, REQUIRED_SKILLS, draw_cases
from demo.skills import SKILLS
from demo.words import draw_word, is_held_out

MODEL_FOLDER = Path(__file__).parents[2] / "workers" / "model" / "demo"


@pytest.fixture(scope="module")
def documents() -> list[Dialog | str]:
    rng = Random(1234)
    return [corpus.document(rng) for _ in range(40_000)]


@pytest.fixture(scope="module")
def encoder() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))


def test_no_held_out_prompt_is_ever_trained_on(documents: list[Dialog | str]) -> None:
    trained = {
        message.content for document in documents if not isinstance(document, str) for message in document.messages
    }

    for skill in SKILLS:
        for case in draw_cases(skill, 100):
            # What is recalled is held out where it is told; the question after it is always the same.
            telling = case.dialog.messages[0 if skill == "recall" else -1]
            assert telling.content not in trained


def test_a_held_out_word_is_never_drawn_for_training() -> None:
    rng = Random(5)

    trained = {draw_word(rng, False) for _ in range(2000)}
    held_out = {draw_word(rng, True) for _ in range(2000)}

    assert not trained & held_out
    assert all(is_held_out("word", word) for word in held_out)


def test_no_wording_of_the_evaluation_is_ever_generated(documents: list[Dialog | str]) -> None:
    tables: tuple[tuple[str, ...], ...] = (
        unseen_wordings.REPEAT,
        unseen_wordings.PREFIX,
        unseen_wordings.REVERSE,
        unseen_wordings.SPELL,
    )
    tables += (unseen_wordings.COUNT, unseen_wordings.COUNT_DOWN, unseen_wordings.ADD, unseen_wordings.SUBTRACT)
    wordings = [_bare(wording) for table in tables for wording in table]
    patterns = [re.compile(re.sub(r"\\\{\w\\\}", ".+", re.escape(wording))) for wording in wordings]
    patterns += [re.compile(re.escape(_bare(wording))) for wording in unseen_wordings.CAPITALS]
    told_and_asked = [_bare(wording) for row in unseen_wordings.RECALL for wording in row[:2]]
    patterns += [re.compile(re.sub(r"\\\{\w\\\}", ".+", re.escape(wording))) for wording in told_and_asked]
    asked = {
        _bare(message.content)
        for document in documents
        if not isinstance(document, str)
        for message in document.messages
        if message.role != "assistant"
    }

    for pattern in patterns:
        assert not [text for text in asked if pattern.fullmatch(text)], pattern.pattern


def test_the_evaluation_of_unseen_wordings_is_answered_as_the_corpus_answers() -> None:
    answers = {skill: {turn.answer for _, turn in unseen_wordings.draw(skill, 40)} for skill in unseen_wordings.SKILLS}

    assert all(len(found) >= 12 for found in answers.values()), {skill: len(one) for skill, one in answers.items()}
    assert "The early bird catches the worm." in answers["repeat"]
    assert any(answer.startswith("Output: ") for answer in answers["prefix"])


def _bare(text: str) -> str:
    return re.sub(r"[\s\"'.!?,]+", " ", text.lower()).strip()


def test_every_skill_has_enough_held_out_cases() -> None:
    for skill in (*REQUIRED_SKILLS, *OTHER_SKILLS):
        assert len(draw_cases(skill, 60)) >= 30, skill


@pytest.mark.parametrize("is_short", [True, False])
def test_a_told_story_passes_its_checker_and_a_broken_one_does_not(is_short: bool) -> None:
    rng = Random(2)

    for _ in range(50):
        hero = stories.draw_hero(rng, False)
        text = stories.tell(rng, hero, is_short=is_short)
        sentences = text.split(". ")

        assert stories.is_story(text, hero, is_short=is_short)
        assert stories.is_story(text, None, is_short=is_short)
        assert not stories.is_story(text, "somebody", is_short=is_short)
        assert not stories.is_story(text, hero, is_short=not is_short)
        assert not stories.is_story(". ".join(sentences[:2] + sentences[3:]), hero, is_short=is_short)
        assert not stories.is_story(text + " The end.", hero, is_short=is_short)


def test_tokens_round_trip_and_unknown_words_fall_apart(encoder: Tokenizer) -> None:
    text = "Tokenpost met Zorblin, 47 + 38 = 85.\nÄpfel <|im_end|> 東京 🙂"

    ids = encoder.encode(text, add_special_tokens=False).ids

    assert encoder.decode(ids, skip_special_tokens=False) == text
    assert encoder.encode("zorblin").tokens == list("zorblin")
    assert encoder.encode(" story").tokens == ["Ġstory"]


def test_the_chat_template_renders_what_the_trainer_trained_on(
    documents: list[Dialog | str], encoder: Tokenizer
) -> None:
    config = json.loads((MODEL_FOLDER / "tokenizer_config.json").read_text())
    template = ImmutableSandboxedEnvironment().from_string(config["chat_template"])

    for document in documents[:500]:
        if isinstance(document, str) or document.tools or document.thinking is not None:
            continue
        chat = [message.as_chat() for message in document.messages]
        assert template.render(messages=chat) == document.text()
        prompt = template.render(messages=chat[:-1], add_generation_prompt=True)
        assert document.text().startswith(prompt + document.messages[-1].content)

    assert (MODEL_FOLDER / "chat_template.jinja").read_text() == config["chat_template"]
    assert encoder.token_to_id("<|im_end|>") == json.loads((MODEL_FOLDER / "config.json").read_text())["eos_token_id"]
