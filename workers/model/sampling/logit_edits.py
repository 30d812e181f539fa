"""Logit edits of a request before sampling: masks, biases and penalties of single tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.model.sampling.counts import CountTables
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampling_rows import (
    SamplingRequest,
    bounded_biases,
    is_penalised,
    masked_ids,
    penalty_rates,
)
from workers.model.sampling.upload import joined, send, upload

_MAX_LOGIT = torch.finfo(torch.float32).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """Penalties of tokens that the sequence already contains.

    rows, ids: [num_entries] where their logits stand
    counts:    [num_entries] how often the output holds each; 0 for one of the prompt alone
    rates:     [3, num_entries] repetition, presence and frequency penalty
    pending:   rows whose pending token counts as well, [num_pending], and their rates; None without any
    """

    rows: Tensor
    ids: Tensor
    counts: Tensor
    rates: Tensor
    pending: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """All edits of a batch; None where no row asks for that kind.

    masked: rows and ids, [num_masked] each
    biased: rows, ids and what is added, [num_biased] each
    """

    masked: tuple[Tensor, Tensor] | None
    biased: tuple[Tensor, Tensor, Tensor] | None
    penalties: Penalties | None

    def apply(self, logits: Tensor, pending: Tensor | None) -> "Undo":
        """Edit the logits in place; what is returned puts them back.

        logits:  [num_rows, vocab_size] float32
        pending: [num_rows] token ids, read where a row's request has one
        """
        undo = Undo(logits)
        if self.masked:
            undo.replace(*self.masked, lambda values: torch.full_like(values, -torch.inf))
        if self.biased:
            rows, ids, bias = self.biased
            undo.replace(rows, ids, lambda values: values + bias)
        if self.penalties:
            rows, ids, counts, rates = _with_pending(self.penalties, pending)
            undo.replace(rows, ids, lambda values: penalised(values, counts, rates))
        return undo


class Undo:
    """Single logits of a batch, replaced in place, and what they were before."""

    def __init__(self, logits: Tensor) -> None:
        # Rows may lie further apart than they are long. Flat places are many times faster than pairs of them.
        self._stride = logits.stride(0)
        num_places = (logits.shape[0] - 1) * self._stride + logits.shape[1]
        self._flat = logits.as_strided((num_places,), (1,))
        self._before: list[tuple[Tensor, Tensor]] = []

    def replace(self, rows: Tensor, ids: Tensor, edit: Callable[[Tensor], Tensor]) -> None:
        """Replace the logits at (rows, ids) by what `edit` makes of them."""
        places = rows * self._stride + ids
        values = self._flat.index_select(0, places)
        self._before.append((places, values))
        self._flat.scatter_(0, places, edit(values))

    def __call__(self) -> None:
        """Put back what was replaced."""
        for places, values in reversed(self._before):
            self._flat.scatter_(0, places, values)


def penalised(logits: Tensor, counts: Tensor, rates: Tensor) -> Tensor:
    """Logits of tokens that a sequence holds. What overflows stays finite; what is -inf stays so.

    logits, counts: [num_entries]
    rates:          [3, num_entries] repetition, presence and frequency penalty

    In float64, where the products are exact: `penalised` of kernels/logit_edits.h comes to the same.

    Source: Keskar et al. 2019, "CTRL" (repetition); the OpenAI API (presence and frequency).
    """
    repetition, presence, frequency = rates.double()
    wide = logits.double()
    scaled = torch.where(wide > 0, wide / repetition, wide * repetition)
    values = (scaled - (presence * (counts > 0) + frequency * counts)).clamp_(-_MAX_LOGIT, _MAX_LOGIT)
    return torch.where(logits == -torch.inf, logits, values.float())


def _with_pending(penalties: Penalties, pending: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, ids, counts and rates with the pending tokens counted. An id may then come twice, with equal counts."""
    rows, ids, counts, rates = penalties.rows, penalties.ids, penalties.counts, penalties.rates
    if penalties.pending is None:
        return rows, ids, counts, rates
    assert pending is not None, "a request has a pending token that was not handed in"
    new_rows, new_rates = penalties.pending
    new_id_by_row = torch.full_like(pending, -1)
    new_id_by_row[new_rows] = pending[new_rows]
    is_again = ids == new_id_by_row[rows]
    counts = counts + is_again
    count_by_row = torch.zeros_like(pending, dtype=counts.dtype).index_add_(0, rows, counts * is_again)
    new_counts = count_by_row[new_rows].clamp_(min=1)
    return (
        torch.cat([rows, new_rows]),
        torch.cat([ids, new_id_by_row[new_rows]]),
        torch.cat([counts, new_counts]),
        torch.cat([rates, new_rates], dim=1),
    )


class EditPlanner:
    """Plans the logit edits of each batch; keeps the tables of penalised sequences."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        self.tables = CountTables()
        self._vocab_size = vocabulary.size
        self._eos_token_ids = sorted(vocabulary.eos_token_ids)
        self._device = device

    def plan(self, requests: Sequence[SamplingRequest]) -> Edits | None:
        """The edits of a batch; None without any."""
        self.tables.begin_step()
        masked = [
            (row, token_id)
            for row, request in enumerate(requests)
            for token_id in masked_ids(request, self._eos_token_ids, self._vocab_size)
        ]
        biased = [
            (row, token_id) for row, request in enumerate(requests) for token_id, _ in request.sampling.logit_bias
        ]
        biases = [bias for request in requests for bias in bounded_biases(request.sampling)]
        penalised_rows = [row for row, request in enumerate(requests) if is_penalised(request.sampling)]
        if not masked and not biased and not penalised_rows:
            return None
        return Edits(
            masked=self._index(masked) if masked else None,
            biased=(*self._index(biased), upload(biases, torch.float32, self._device)) if biased else None,
            penalties=self._penalties(requests, penalised_rows) if penalised_rows else None,
        )

    def _index(self, entries: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        both = upload(entries, torch.int64, self._device)
        return both[:, 0], both[:, 1]

    def _penalties(self, requests: Sequence[SamplingRequest], rows: list[int]) -> Penalties:
        tables = [self.tables.table(requests[row]) for row in rows]
        lengths = torch.tensor([len(table.ids) for table in tables])
        rates = torch.tensor(
            [penalty_rates(requests[row].sampling) for row in rows], dtype=torch.float32
        ).T.contiguous()
        pending = [place for place, row in enumerate(rows) if requests[row].is_pending]
        pending_rows = [rows[place] for place in pending]
        return Penalties(
            rows=send(torch.tensor(rows).repeat_interleave(lengths), self._device),
            ids=joined([table.ids for table in tables], torch.int32, self._device).long(),
            counts=joined([table.counts for table in tables], torch.int32, self._device),
            rates=send(rates.repeat_interleave(lengths, dim=1), self._device),
            pending=(upload(pending_rows, torch.int64, self._device), send(rates[:, pending], self._device))
            if pending
            else None,
        )
