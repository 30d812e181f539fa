"""The judgment of a request's constraints, before it becomes a job: from the cache, or by a checker process."""

import asyncio
from collections.abc import Mapping, Sequence

from api.grammars.checker import Checker
from api.grammars.verdicts import Verdict, VerdictCache, digest_of
from api.protocol.structured.constraints import Constraint, Judged, refusal_error, refuse_large
from storage.errors import Overloaded

# One may be busy with hostile texts while the other answers.
_NUM_CHECKERS = 2
_MAX_QUESTIONS = 64
_RETRY_AFTER_S = 2
_CACHE_BYTES = 16 * 1024 * 1024


class ConstraintChecks:
    """Judges constraints. Its processes start when the first constraint comes that is not in the cache."""

    def __init__(self) -> None:
        self._verdicts = VerdictCache(max_bytes=_CACHE_BYTES)
        self._idle = [Checker() for _ in range(_NUM_CHECKERS)]
        self._is_idle = asyncio.Semaphore(_NUM_CHECKERS)
        self._questions: set[asyncio.Task[list[Verdict]]] = set()

    async def judge(self, project: str, constraints: Sequence[Constraint]) -> Mapping[str, Judged]:
        """The judgments by `param`. Raises the error of the first constraint that is refused, and Overloaded."""
        if not constraints:
            return {}
        refuse_large(constraints)
        by_digest = {digest_of(project, constraint): constraint for constraint in constraints}
        known = {digest: verdict for digest in by_digest if (verdict := self._verdicts.find(digest)) is not None}
        missing = [digest for digest in by_digest if digest not in known]
        if missing:
            # Behind a refusal there are no verdicts.
            found = dict(zip(missing, await self._ask([by_digest[digest] for digest in missing]), strict=False))
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

    async def _ask(self, constraints: Sequence[Constraint]) -> list[Verdict]:
        if len(self._questions) >= _MAX_QUESTIONS:
            raise Overloaded("Too many schemas and grammars wait to be compiled.", retry_after_s=_RETRY_AFTER_S)
        # A caller that disconnects must not take the answer of a checker with it.
        question = asyncio.create_task(self._answer(constraints))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)
        try:
            return await asyncio.shield(question)
        except TimeoutError as error:
            raise Overloaded("This server is too busy to compile.", retry_after_s=_RETRY_AFTER_S) from error

    async def _answer(self, constraints: Sequence[Constraint]) -> list[Verdict]:
        async with self._is_idle:
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
