"""What the ledger and the platform's own words say of every job: whether it was lost, doubled or changed. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from storage.contract import JobKind, JobStatus
from storage.errors import IdempotencyKeyInUse
from storage.webhooks.event_types import event_type_of
from tests.drill.ledger import Entry, What
from tests.drill.work import KINDS, Kind, Surface, reference_key, text_of, usage_of

_ENDED = ("completed", "incomplete", "failed", "cancelled")
_JOB_KINDS = {
    Surface.RESPONSE: JobKind.RESPONSE,
    Surface.CHAT: JobKind.CHAT,
    Surface.COMPLETION: JobKind.COMPLETION,
}
_TERMINAL_EVENTS = ("response.completed", "response.incomplete", "response.failed")


class Harm(StrEnum):
    """What may have happened to a job against the promise."""

    LOST = "lost"
    DOUBLED = "duplicated"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One breach, in words that say what was seen."""

    harm: Harm
    job: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job must come to: the undisturbed run's text and tokens."""

    text: str
    num_prompt: int
    num_output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the database says of a job afterwards.

    num_token_ids: length of the stored result's token ids
    name:          the client's, from its metadata; empty where the protocol has none
    """

    id: str
    status: str
    name: str = ""
    num_prompt: int | None = None
    num_output: int | None = None
    num_token_ids: int = 0
    lost_attempts: int = 0
    failure: str = ""
    num_attached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the API says of a job afterwards, asked anew.

    frames:    of a replay from 0
    text:      of the object
    num_ends:  END entries in the log; None where there is no log (any more)
    end_usage: what the END says of tokens
    """

    frames: Sequence[str] = ()
    text: str = ""
    num_ends: int | None = None
    end_usage: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One delivery of a webhook event, as the receiver saw it.

    is_taken:    the receiver answered well
    is_followed: it came to where a redirect pointed
    """

    event_id: str
    type: str
    job_id: str
    is_signed: bool
    is_taken: bool
    is_followed: bool = False


@dataclass(slots=True, kw_only=True)
class Story:
    """One job as the ledger tells it."""

    name: str
    kind: Kind
    template: int
    ids: list[str] = field(default_factory=list)
    events: list[Entry] = field(default_factory=list)
    refusals: list[Entry] = field(default_factory=list)
    num_broken: int = 0
    ends: list[str | None] = field(default_factory=list)
    has_given_up: bool = False
    polled: list[str] = field(default_factory=list)


def stories_of(entries: Iterable[Entry]) -> dict[str, Story]:
    """The jobs by name."""
    stories: dict[str, Story] = {}
    for entry in entries:
        if entry.what is What.ASKED and entry.job not in stories:
            assert entry.kind is not None
            assert entry.template is not None
            stories[entry.job] = Story(name=entry.job, kind=KINDS[entry.kind], template=entry.template)
        story = stories.get(entry.job)
        if story is None:
            continue
        match entry.what:
            case What.ACCEPTED:
                story.ids.append(entry.id or "")
            case What.EVENT:
                story.events.append(entry)
            case What.REFUSED:
                story.refusals.append(entry)
            case What.BROKEN:
                story.num_broken += 1
            case What.ENDED:
                story.ends.append(entry.data)
            case What.GAVE_UP:
                story.has_given_up = True
            case What.POLLED:
                story.polled.append(entry.data or "")
            case _:
                pass
    return stories


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the judge looks at.

    references: by `work.reference_key`
    rows:       every row of the database that this load can have made, by id
    replays:    of every accepted job, by id
    has_keys:   whether an Idempotency-Key holds
    hooks:      deliveries by job, where each job has a target; None where none has
    doomed:     ids of jobs that must fail with `worker_lost`
    """

    entries: Sequence[Entry]
    references: Mapping[str, Outcome]
    rows: Mapping[str, Row]
    replays: Mapping[str, Replay]
    has_keys: bool = True
    hooks: Mapping[str, Sequence[Hook]] | None = None
    doomed: frozenset[str] = frozenset()


def judge(evidence: Evidence) -> list[Violation]:
    """Every breach of the promise; none is the only good answer."""
    stories = stories_of(evidence.entries)
    found: list[Violation] = []
    for story in stories.values():
        found += _judge_acceptance(story, evidence)
        if story.ids:
            found += _judge_end(story, evidence)
    return found + _judge_rows(stories, evidence) + _judge_sum(stories, evidence)


def _is_passing(refusal: Entry) -> bool:
    """Whether the client was asked to come again. A client that hung up meets its own first request, with 409."""
    return refusal.status in (429, 503) or (refusal.status == 409 and IdempotencyKeyInUse.code in (refusal.data or ""))


def _judge_acceptance(story: Story, evidence: Evidence) -> list[Violation]:
    found = []
    if story.has_given_up:
        found.append(_lost(story, "the client waited in vain" + (f" for {story.ids[0]}" if story.ids else "")))
    if len(set(story.ids)) > 1:
        found.append(_doubled(story, f"accepted as {len(set(story.ids))} jobs: {sorted(set(story.ids))}"))
    strange = [one for one in story.refusals if not _is_passing(one) and one.id not in evidence.doomed]
    found += [_lost(story, f"refused with {one.status}: {(one.data or '')[:200]}") for one in strange]
    return found


def _judge_end(story: Story, evidence: Evidence) -> list[Violation]:
    job_id = story.ids[0]
    row = evidence.rows.get(job_id)
    if row is None:
        return [_lost(story, f"{job_id} was accepted and has no row")]
    if row.status not in _ENDED:
        return [_lost(story, f"{job_id} was accepted and is {row.status}")]
    if story.kind.surface is not Surface.COMPLETION and row.name != story.name:
        return [_changed(story, f"its row carries the name {row.name!r}")]
    if job_id in evidence.doomed:
        return _judge_doomed(story, row) + _judge_hooks(story, row, evidence)
    if row.status not in ("completed", "incomplete"):
        return [_lost(story, f"{job_id} ended as {row.status} {row.failure} ({row.lost_attempts} attempts lost)")]
    found = _judge_hooks(story, row, evidence)
    if not story.has_given_up and len(story.ends) != 1:
        found.append(_doubled(story, f"reported its end {len(story.ends)} times"))
    reference = evidence.references[reference_key(story.kind, story.template)]
    found += _judge_usage(story, row, evidence.replays.get(job_id), reference)
    found += _judge_replay(story, evidence.replays.get(job_id), reference)
    if story.kind.is_stream:
        found += _judge_stream(story, row, reference)
    else:
        found += _judge_answer(story, reference)
    return found


def _judge_doomed(story: Story, row: Row) -> list[Violation]:
    if (row.status, row.failure) == ("failed", "worker_lost"):
        return []
    return [_changed(story, f"had to fail with worker_lost and is {row.status} {row.failure}")]


def _judge_hooks(story: Story, row: Row, evidence: Evidence) -> list[Violation]:
    """At least one delivery that was taken, of one event, which says how the job ended."""
    if evidence.hooks is None:
        return []
    hooks = evidence.hooks.get(row.id, ())
    found = []
    if not any(hook.is_taken for hook in hooks):
        found.append(_lost(story, f"no receiver was notified of its end ({len(hooks)} deliveries failed)"))
    if len({hook.event_id for hook in hooks}) > 1:
        found.append(_doubled(story, f"reported as several events: {sorted({hook.event_id for hook in hooks})}"))
    expected = event_type_of(_JOB_KINDS[story.kind.surface], JobStatus(row.status))
    if any(hook.type != expected for hook in hooks):
        found.append(_changed(story, f"reported as {sorted({hook.type for hook in hooks})} instead of {expected}"))
    if not all(hook.is_signed for hook in hooks):
        found.append(_changed(story, "reported without a good signature"))
    if any(hook.is_followed for hook in hooks):
        found.append(_changed(story, "reported to where a redirect pointed"))
    return found


def _judge_usage(story: Story, row: Row, replay: Replay | None, reference: Outcome) -> list[Violation]:
    reported = {"row": (row.num_prompt, row.num_output), "reference": (reference.num_prompt, reference.num_output)}
    reported["token ids"] = (reference.num_prompt, row.num_token_ids)
    if replay is not None and replay.end_usage is not None:
        reported["END"] = replay.end_usage
    if len(set(reported.values())) == 1:
        return []
    return [_changed(story, f"usage (prompt, output) is reported differently: {reported}")]


def _judge_replay(story: Story, replay: Replay | None, reference: Outcome) -> list[Violation]:
    if replay is None:
        return [_lost(story, "could not be read again")]
    found = []
    if replay.text != reference.text:
        found.append(_changed(story, f"read again, its text is {_difference(replay.text, reference.text)}"))
    if replay.num_ends == 0:
        found.append(_lost(story, "its log has no END"))
    elif replay.num_ends is not None and replay.num_ends > 1:
        found.append(_doubled(story, f"{replay.num_ends} ENDs in its log"))
    if story.kind.is_stream and not story.has_given_up:
        seen = [entry.data or "" for entry in story.events]
        if seen != list(replay.frames):
            place = next(
                (place for place, pair in enumerate(zip(seen, replay.frames, strict=False)) if pair[0] != pair[1]),
                min(len(seen), len(replay.frames)),
            )
            found.append(
                _changed(
                    story,
                    f"replayed from 0 it is {len(replay.frames)} frames, not the {len(seen)} seen; they part at "
                    f"{place}: {seen[place : place + 1]} {list(replay.frames[place : place + 1])}"[:900],
                )
            )
    return found


def _judge_stream(story: Story, row: Row, reference: Outcome) -> list[Violation]:
    found = []
    expected = 0
    for entry in story.events:
        assert entry.seq is not None
        if entry.seq < expected:
            found.append(_doubled(story, f"event {entry.seq} came again"))
        elif entry.seq > expected:
            found.append(_lost(story, f"events {expected} to {entry.seq - 1} never came"))
        expected = max(expected, entry.seq + 1)
    bodies = [json.loads((entry.data or "").rpartition("data: ")[2]) for entry in story.events]
    if story.kind.surface is Surface.RESPONSE:
        text = "".join(body["delta"] for body in bodies if body["type"] == "response.output_text.delta")
        terminal = [body for body in bodies if body["type"] in _TERMINAL_EVENTS]
        ends = [body["response"]["status"] for body in terminal]
        if bodies and not story.has_given_up and (len(terminal) != 1 or bodies[-1] is not terminal[0]):
            found.append(_doubled(story, f"{len(terminal)} terminal events, the last event is {bodies[-1]['type']}"))
        if terminal and usage_of(terminal[-1]["response"]) != (reference.num_prompt, reference.num_output):
            found.append(_changed(story, f"its stream's usage is {usage_of(terminal[-1]['response'])}"))
        if terminal and text_of(story.kind.surface, terminal[-1]["response"]) != reference.text:
            found.append(_changed(story, "its terminal event has another text"))
    else:
        chosen = [choice for body in bodies for choice in body["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in chosen)
        reasons = [choice["finish_reason"] for choice in chosen if choice["finish_reason"]]
        ends = ["incomplete" if reason == "length" else "completed" for reason in reasons]
    if not story.has_given_up and ends != [row.status]:
        found.append(_changed(story, f"its stream ended as {ends}, its row as {row.status}"))
    if not story.has_given_up and text != reference.text:
        found.append(_changed(story, f"streamed, its text is {_difference(text, reference.text)}"))
    return found


def _judge_answer(story: Story, reference: Outcome) -> list[Violation]:
    found = []
    for end in story.ends:
        answer = json.loads(end or "{}")
        text = text_of(story.kind.surface, answer)
        if text != reference.text:
            found.append(_changed(story, f"answered, its text is {_difference(text, reference.text)}"))
        if usage_of(answer) != (reference.num_prompt, reference.num_output):
            found.append(_changed(story, f"its answer's usage is {usage_of(answer)}"))
    if any(status in _ENDED for status in story.polled[:-1]):
        found.append(_changed(story, f"its status went {' -> '.join(story.polled)}"))
    return found


def _judge_rows(stories: Mapping[str, Story], evidence: Evidence) -> list[Violation]:
    """Rows that should not be there."""
    found = []
    by_name = Counter(row.name for row in evidence.rows.values() if row.name)
    for name, number in by_name.items():
        story = stories.get(name)
        if story is None:
            continue
        # Without an answer nobody knows; a blocking call's refusal may come from a server that goes down half-way.
        is_unknown = bool(story.num_broken) or story.kind.is_blocking
        if evidence.has_keys and number > 1:
            found.append(_doubled(story, f"one Idempotency-Key made {number} rows"))
        elif not is_unknown and number > len(set(story.ids)):
            found.append(_doubled(story, f"refused ({len(story.refusals)} times), and yet there are {number} rows"))
    for row in evidence.rows.values():
        if row.status not in _ENDED and not any(row.id in story.ids for story in stories.values()):
            found.append(Violation(harm=Harm.LOST, job=row.name or row.id, what=f"{row.id} stays {row.status}"))
    return found


def _judge_sum(stories: Mapping[str, Story], evidence: Evidence) -> list[Violation]:
    """The bill: all that was accepted, as the rows sum it up and as the undisturbed run does."""
    billed = expected = 0
    for story in stories.values():
        row = evidence.rows.get(story.ids[0]) if story.ids else None
        if row is not None and row.id not in evidence.doomed and row.num_output is not None:
            billed += row.num_output
            expected += evidence.references[reference_key(story.kind, story.template)].num_output
    if billed == expected:
        return []
    return [Violation(harm=Harm.CHANGED, job="all", what=f"{billed} output tokens are billed instead of {expected}")]


def _difference(text: str, reference: str) -> str:
    place = next(
        (place for place, pair in enumerate(zip(text, reference, strict=False)) if pair[0] != pair[1]),
        min(len(text), len(reference)),
    )
    return f"another from character {place}: {text[place : place + 40]!r} instead of {reference[place : place + 40]!r}"


def _lost(story: Story, what: str) -> Violation:
    return Violation(harm=Harm.LOST, job=story.name, what=what)


def _doubled(story: Story, what: str) -> Violation:
    return Violation(harm=Harm.DOUBLED, job=story.name, what=what)


def _changed(story: Story, what: str) -> Violation:
    return Violation(harm=Harm.CHANGED, job=story.name, what=what)
