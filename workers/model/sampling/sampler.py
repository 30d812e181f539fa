"""The next token of each row of logits, in three parts: what the host prepares, what the device draws, what came."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from workers.model.native.library import Library
from workers.model.sampling.edits import EditPlanner, Edits
from workers.model.sampling.logprobs import pack_ranked, unpack_ranked
from workers.model.sampling.native_race import plan_native_races
from workers.model.sampling.race import likeliest, plan_races
from workers.model.sampling.request import DrawRequest, Draws, is_noisy
from workers.model.sampling.upload import upload

_NO_TOKEN = -1


class Race(Protocol):
    """Rows that are not greedy; `TorchRace.run` says what a run does."""

    def run(self, logits: Tensor, best: Tensor, tokens: Tensor) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a draw needs besides the logits, on the device.

    edits:       None where no logit is changed
    races:       rows that are not greedy
    ranked:      rows that tell log probabilities, [num_ranked]; None without any
    ranked_rows: the same rows, and how many of the likeliest each tells
    """

    num_rows: int
    edits: Edits | None
    races: Sequence[Race]
    ranked: Tensor | None
    ranked_rows: dict[int, int]

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token of every row is all there is to tell."""
        return self.edits is None and not self.races and not self.ranked_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Tokens on the device.

    token_ids: [num_rows] int64, also where there is none to draw: some id of the vocabulary then
    packed:    all that the host must know, int64; a copy of it on the CPU will do for `results`
    """

    token_ids: Tensor
    packed: Tensor
    ranked_rows: dict[int, int]


class Sampler:
    """Draws for one model.

    It keeps tables of token counts of sequences with penalties, and nothing that a draw depends on: every token is
    a function of its own row's logits and request.
    """

    def __init__(
        self, *, vocab_size: int, eos_token_ids: Collection[int], device: torch.device, library: Library | None = None
    ) -> None:
        """On a CPU `library` draws, where there is one."""
        self._library = library if device.type == "cpu" else None
        self._vocab_size = vocab_size
        self._device = device
        self._edits = EditPlanner(vocab_size=vocab_size, eos_token_ids=eos_token_ids, device=device)

    def prepare(self, requests: Sequence[DrawRequest]) -> Prepared:
        """Plan a draw. Needs no logits: it may run while the device still computes them."""
        noisy = [row for row, request in enumerate(requests) if is_noisy(request.sampling)]
        ranked_rows = {
            row: request.sampling.logprobs
            for row, request in enumerate(requests)
            if request.sampling.logprobs is not None
        }
        return Prepared(
            num_rows=len(requests),
            edits=self._edits.plan(requests),
            races=self._races(requests, noisy) if noisy else [],
            ranked=upload(list(ranked_rows), torch.int64, self._device) if ranked_rows else None,
            ranked_rows=ranked_rows,
        )

    def _races(self, requests: Sequence[DrawRequest], rows: Sequence[int]) -> Sequence[Race]:
        if self._library is not None:
            return plan_native_races(self._library, requests, rows, self._vocab_size)
        return plan_races(requests, rows, self._vocab_size, self._device)

    @torch.inference_mode()
    def draw(self, logits: Tensor, prepared: Prepared, pending: Tensor | None = None) -> Drawn:
        """Draw on the device; on CUDA nothing here waits for it.

        logits:  [num_rows, vocab_size], of no use afterwards: edits are made in place
        pending: [num_rows] int64, the token that the launch before drew, read where a request is pending
        """
        logits = logits.float()
        best, tokens = likeliest(logits)
        is_sound = best.isfinite()
        undo = None
        if prepared.edits is not None:
            undo = prepared.edits.apply(logits, pending)
            best, tokens = likeliest(logits)
            is_sound &= best > -torch.inf
        for race in prepared.races:
            race.run(logits, best, tokens)
        packed = torch.where(is_sound, tokens, _NO_TOKEN)
        if prepared.ranked is not None:
            if undo is not None:
                undo()
            num_top = max(prepared.ranked_rows.values())
            ranked = pack_ranked(logits[prepared.ranked], tokens[prepared.ranked], num_top)
            packed = torch.cat([packed, ranked.flatten()])
        return Drawn(token_ids=tokens, packed=packed, ranked_rows=prepared.ranked_rows)

    def results(self, drawn: Drawn) -> Draws:
        """What was drawn, on the host: waits for the device, and copies once."""
        num_rows = len(drawn.token_ids)
        packed = drawn.packed.cpu()
        token_ids = [None if token_id == _NO_TOKEN else token_id for token_id in packed[:num_rows].tolist()]
        if not drawn.ranked_rows:
            return Draws(token_ids=token_ids)
        table = packed[num_rows:].view(len(drawn.ranked_rows), -1)
        ranked = unpack_ranked(table, list(drawn.ranked_rows.values()))
        logprobs = {row: one for row, one in zip(drawn.ranked_rows, ranked, strict=True) if token_ids[row] is not None}
        return Draws(token_ids=token_ids, logprobs=logprobs)

    def sample(self, logits: Tensor, requests: Sequence[DrawRequest]) -> Draws:
        """Prepare, draw and tell in one go."""
        return self.results(self.draw(logits, self.prepare(requests)))

    def forget(self, sequence_id: str) -> None:
        """Drop what is kept of a sequence that has ended; it would go by itself after a while."""
        self._edits.tables.forget(sequence_id)
