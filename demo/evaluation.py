"""How exact the demo model is: held-out dialogs of each skill and their scoring, for any engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from demo import stories, unseen_wordings
from demo.corpus import capitals_instruction, conversation, prefix_instruction
from demo.dialog import THINK_END, Dialog, Message
from demo.skills import SKILLS, Lesson, Turn
from demo.structured import held_out_tools, unseen_tools

# Takes dialogs that end before an answer and the most tokens to generate for each; returns what the model writes.
Reply = Callable[[list[Dialog], int], list[str]]

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
STRUCTURED_SKILLS = (*unseen_tools.SKILLS, "think")
NUMBER_SKILLS = ("count", "count_down", "add", "subtract")
MIN_STORY_TOKENS = 200
MAX_ANSWER_TOKENS = 160
MAX_STORY_TOKENS = 700
# A system message shapes the answers of these skills.
SHAPED_SKILLS = ("greeting", "identity", "recall", "count", "spell", "reverse", "add", "subtract", "fact", "repeat")
# Skills that are asked again with thinking on.
_THINKING_SKILLS = ("spell", "add", "subtract", "repeat", "recall", "tool_call", "tool_result", "form")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A held-out dialog up to the user's last message, and what the right answer is.

    answer: what the assistant writes, behind its thought where thinking is on
    story:  the turn that asks for a story, of which any consistent one is right
    """

    dialog: Dialog
    answer: str
    story: Turn | None = None

    def is_exact(self, reply: str, count_tokens: Callable[[str], int]) -> bool:
        """Whether the reply is the answer, letter by letter, or for a story the whole consistent plot."""
        if self.story is not None:
            is_long_enough = self.story.is_short or count_tokens(reply) >= MIN_STORY_TOKENS
            return is_long_enough and stories.is_story(reply, self.story.hero, is_short=self.story.is_short)
        if not self.dialog.thinking:
            return reply == self.answer
        thought, closed, answer = reply.partition(f"\n{THINK_END}\n\n")
        return bool(thought.strip() and closed) and answer == self.answer


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
        content = case.answer if skill in NUMBER_SKILLS else case.dialog.prompt()
        drawn.setdefault(content, case)
        if len(drawn) == num_cases:
            break
    return list(drawn.values())


def draw_unseen_wordings(skill: str, num_cases: int) -> list[Case]:
    """Cases of a skill in wordings, and with tools and forms, that the generator does not have."""
    if skill == "think":
        each = -(-num_cases // len(_THINKING_SKILLS))
        found = [case for name in _THINKING_SKILLS for case in draw_unseen_wordings(name, each)]
        return [_with_thinking(case) for case in found][:num_cases]
    if skill in unseen_tools.SKILLS:
        drawn = unseen_tools.draw(skill, num_cases)
        return [Case(dialog=dialog, answer=message.answer()) for dialog, message in drawn]
    worded = unseen_wordings.draw(skill, num_cases)
    return [Case(dialog=Dialog(messages=messages), answer=turn.answer) for messages, turn in worded]


def evaluate(
    skill: str, cases: list[Case], reply: Reply, count_tokens: Callable[[str], int], *, batch_size: int = 100
) -> Score:
    """The score of one skill on these cases."""
    score = Score()
    max_tokens = MAX_STORY_TOKENS if skill == "story" else MAX_ANSWER_TOKENS
    for start in range(0, len(cases), batch_size):
        batch = cases[start : start + batch_size]
        for case, text in zip(batch, reply([case.dialog for case in batch], max_tokens), strict=True):
            is_exact = case.is_exact(text, count_tokens)
            score.num_cases += 1
            score.num_exact += is_exact
            if not is_exact:
                score.misses.append((case, text))
    return score


def _draw_case(skill: str, rng: Random) -> Case:
    match skill:
        case "capitals":
            return _case(conversation(rng, _shaped_lesson(rng), capitals_instruction(rng, held_out=True)))
        case "prefix":
            return _case(conversation(rng, _shaped_lesson(rng), prefix_instruction(rng, held_out=True)))
        case "think":
            return _with_thinking(_draw_case(rng.choice(_THINKING_SKILLS), rng))
        case _ if skill in unseen_tools.SKILLS:
            dialog = held_out_tools.draw(skill, rng)
            return _case(dialog.messages, dialog)
        case _:
            lesson = SKILLS[skill](rng, True)
            return _case(conversation(rng, lesson, None), story=lesson[-1] if lesson[-1].is_story else None)


def _case(messages: list[Message], dialog: Dialog | None = None, story: Turn | None = None) -> Case:
    tools = () if dialog is None else dialog.tools
    return Case(dialog=Dialog(messages=messages[:-1], tools=tools), answer=messages[-1].answer(), story=story)


def _with_thinking(case: Case) -> Case:
    dialog = Dialog(messages=case.dialog.messages, tools=case.dialog.tools, thinking=True)
    return Case(dialog=dialog, answer=case.answer)


def _shaped_lesson(rng: Random) -> Lesson:
    return SKILLS[rng.choice(SHAPED_SKILLS)](rng, True)
