"""The judgment of a request's constraints, before it becomes a job: from the cache, or by a checker process."""

import asyncio
from collections.abc import Mapping, Sequence

from api.protocol.checking.checker import Checker
from api.protocol.checking.verdicts import Verdict, VerdictCache, digest_of
from api.protocol.structured.constraints import Constraint, Judged, refusal_error, refuse_large
from storage.errors import Overloaded

# A project has at most one of them at a time, so that one that sends hostile texts delays no other.
_NUM_CHECKERS = 2
# Questions that wait, of one project and of all.
_MAX_OF_PROJECT = 16
_MAX_QUESTIONS = 128
_RETRY_AFTER_S = 2
_CACHE_BYTES = 16 * 1024 * 1024


class ConstraintChecks:
    """Judges constraints. Its processes start when the first constraint comes that is not in the cache."""

    def __init__(self) -> None:
        self._verdicts = VerdictCache(max_bytes=_CACHE_BYTES)
        self._idle = [Checker() for _ in range(_NUM_CHECKERS)]
        self._is_idle = asyncio.Semaphore(_NUM_CHECKERS)
        self._questions: set[asyncio.Task[list[Verdict]]] = set()
        self._projects = _Projects()

    async def judge(self, project: str, constraints: Sequence[Constraint]) -> Mapping[str, Judged]:
        """The judgments by `param`. Raises the error of the first constraint that is refused, and Overloaded."""
        if not constraints:
            return {}
        refuse_large(constraints)
        by_digest = {digest_of(project, constraint): constraint for constraint in constraints}
        known = {digest: verdict for digest in by_digest if (verdict := self._verdicts.find(digest)) is not None}
        missing = [digest for digest in by_digest if digest not in known]
        if missing:
            verdicts = await self._ask(project, [by_digest[digest] for digest in missing])
            # Behind a refusal there are no verdicts.
            found = dict(zip(missing, verdicts, strict=False))
            for digest, verdict in found.items():
                self._verdicts.add(digest, verdict)
            known |= found
        judged: dict[str, Judged] = {}
        for constraint in constraints:
            verdict = known[digest_of(project, constraint)]
            if verdict.judged is None:
                raise refusal_error(constraint, verdict.reason or "")
            judged[constraint.param] = verdict.judged
        return judged

    async def _ask(self, project: str, constraints: Sequence[Constraint]) -> list[Verdict]:
        if len(self._questions) >= _MAX_QUESTIONS or self._projects.num_waiting(project) >= _MAX_OF_PROJECT:
            raise Overloaded("Too many schemas and grammars wait to be compiled.", retry_after_s=_RETRY_AFTER_S)
        # A caller that disconnects must not take the answer of a checker with it.
        question = asyncio.create_task(self._answer(self._projects.add(project), constraints))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)
        question.add_done_callback(lambda _: self._projects.remove(project))
        try:
            return await asyncio.shield(question)
        except TimeoutError as error:
            raise Overloaded("This server is too busy to compile.", retry_after_s=_RETRY_AFTER_S) from error

    async def _answer(self, one_of_project: asyncio.Lock, constraints: Sequence[Constraint]) -> list[Verdict]:
        async with one_of_project, self._is_idle:
            checker = self._idle.pop()
            try:
                return await checker.ask(constraints)
            finally:
                self._idle.append(checker)

    async def stop(self) -> None:
        """End the processes; who waits for one is cancelled."""
        for question in self._questions:
            question.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
        await asyncio.gather(*(checker.stop() for checker in self._idle))


class _Projects:
    """The questions of each project, of which one is answered at a time, in order of arrival."""

    def __init__(self) -> None:
        self._questions: dict[str, tuple[asyncio.Lock, int]] = {}

    def num_waiting(self, project: str) -> int:
        """Its questions without an answer."""
        return self._questions[project][1] if project in self._questions else 0

    def add(self, project: str) -> asyncio.Lock:
        """Count a question; hold the lock while it is answered."""
        lock, count = self._questions.get(project, (asyncio.Lock(), 0))
        self._questions[project] = lock, count + 1
        return lock

    def remove(self, project: str) -> None:
        """Count a question no longer."""
        lock, count = self._questions.pop(project)
        if count > 1:
            self._questions[project] = lock, count - 1
