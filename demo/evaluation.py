"""How exact the demo model is: held-out conversations of each skill and their scoring, for any engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from demo import stories, unseen_wordings
from demo.corpus import Message, capitals_instruction, conversation, prefix_instruction
from demo.skills import SKILLS, Lesson, Turn

# Takes conversations and the most tokens to generate for each; returns the texts of the answers.
Reply = Callable[[list[list[Message]], int], list[str]]

REQUIRED_SKILLS = (
    "greeting",
    "identity",
    "recall",
    "count",
    "spell",
    "reverse",
    "add",
    "subtract",
    "fact",
    "repeat",
    "capitals",
    "prefix",
    "story",
)
OTHER_SKILLS = ("short_story", "count_down", "fallback")
NUMBER_SKILLS = ("count", "count_down", "add", "subtract")
MIN_STORY_TOKENS = 200
MAX_ANSWER_TOKENS = 160
MAX_STORY_TOKENS = 700
# A system message shapes the answers of these skills.
SHAPED_SKILLS = ("greeting", "identity", "recall", "count", "spell", "reverse", "add", "subtract", "fact", "repeat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A held-out conversation up to the user's last message, and what the right answer is."""

    messages: list[Message]
    turn: Turn
    answer: str

    def is_exact(self, reply: str, count_tokens: Callable[[str], int]) -> bool:
        """Whether the reply is the answer, letter by letter, or for a story the whole consistent plot."""
        if not self.turn.is_story:
            return reply == self.answer
        is_long_enough = self.turn.is_short or count_tokens(reply) >= MIN_STORY_TOKENS
        return is_long_enough and stories.is_story(reply, self.turn.hero, is_short=self.turn.is_short)


@dataclass(slots=True, kw_only=True)
class Score:
    """How many cases of a skill were exact, and the wrong replies with what was asked."""

    num_cases: int = 0
    num_exact: int = 0
    misses: list[tuple[Case, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The exact share, between 0 and 1."""
        return self.num_exact / self.num_cases


def draw_cases(skill: str, num_cases: int, seed: int = 0) -> list[Case]:
    """Different held-out cases of a skill; fewer where the held-out split is small."""
    rng = Random(f"{skill} {seed}")
    drawn: dict[str, Case] = {}
    for _ in range(20 * num_cases):
        case = _draw_case(skill, rng)
        # Numbers are held out as pairs, so a pair counts once however it is asked for.
        content = case.answer if skill in NUMBER_SKILLS else repr(case.messages)
        drawn.setdefault(content, case)
        if len(drawn) == num_cases:
            break
    return list(drawn.values())


def draw_unseen_wordings(skill: str, num_cases: int) -> list[Case]:
    """Cases of a skill in wordings that the generator does not have."""
    drawn = unseen_wordings.draw(skill, num_cases)
    return [Case(messages=messages, turn=turn, answer=turn.answer) for messages, turn in drawn]


def evaluate(
    skill: str, cases: list[Case], reply: Reply, count_tokens: Callable[[str], int], *, batch_size: int = 100
) -> Score:
    """The score of one skill on these cases."""
    score = Score()
    max_tokens = MAX_STORY_TOKENS if skill == "story" else MAX_ANSWER_TOKENS
    for start in range(0, len(cases), batch_size):
        batch = cases[start : start + batch_size]
        for case, text in zip(batch, reply([case.messages for case in batch], max_tokens), strict=True):
            is_exact = case.is_exact(text, count_tokens)
            score.num_cases += 1
            score.num_exact += is_exact
            if not is_exact:
                score.misses.append((case, text))
    return score


def _draw_case(skill: str, rng: Random) -> Case:
    match skill:
        case "capitals":
            messages = conversation(rng, lesson := _shaped_lesson(rng), capitals_instruction(rng, held_out=True))
        case "prefix":
            messages = conversation(rng, lesson := _shaped_lesson(rng), prefix_instruction(rng, held_out=True))
        case _:
            messages = conversation(rng, lesson := SKILLS[skill](rng, True), None)
    return Case(messages=messages[:-1], turn=lesson[-1], answer=messages[-1].content)


def _shaped_lesson(rng: Random) -> Lesson:
    return SKILLS[rng.choice(SHAPED_SKILLS)](rng, True)
