"""Sampling on a CPU by the native library (kernels/sample_row.h), many times as fast as torch's operations."""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.constraint.mask_buffer import MaskBuffer
from workers.engine.sampling_seed import position_key
from workers.model.native.decoder import Decoder
from workers.model.native.library import Library
from workers.model.sampling.counts import CountTables
from workers.model.sampling.filters import least_distance
from workers.model.sampling.sampled import SampledTokens, Vocabulary
from workers.model.sampling.sampler import Sampler
from workers.model.sampling.sampling_rows import (
    SamplingRequest,
    bounded_biases,
    is_noisy,
    is_penalised,
    masked_ids,
    num_known,
    penalty_rates,
    ranked_rows_of,
    usable_temperature,
)

# `SamplingRow` of kernels/sample_row.h, in three parts: top_p, two keys, temperature, least and top_k;
_RULES = struct.Struct("@d2iffi4x")
# ids and values of edits, how many there are, whether a pending token counts, and rates of penalties;
_EDITS = struct.Struct("@5P4i3f4x")
# its mask, which of the rows that tell log probabilities it is, and of how many tokens.
_LAST = struct.Struct("@P2i")
_GREEDY = _RULES.pack(1.0, 0, 0, 0.0, 0.0, 0)
_NO_EDITS = bytes(_EDITS.size)
_NO_MASK_NO_RANKS = _LAST.pack(0, -1, 0)
_NOTHING = array("i")


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeSamplingPlan:
    """Rows that the library samples.

    decoder:     on whose threads; None for the caller's own
    rows:        a `Row` each
    owners:      what they point to
    has_pending: whether a row reads its pending token
    """

    library: Library
    decoder: Decoder | None
    num_rows: int
    rows: bytes
    owners: Sequence["array[int] | array[float]"]
    has_pending: bool
    ranked_rows: dict[int, int]
    is_plain: bool

    def sample(self, logits: Tensor, pending: Tensor | None) -> SampledTokens:
        """As `TorchSamplingPlan.sample`.

        A token is the same unless two scores, or a weight and a limit, differ only in float32's last digits; so are
        log probabilities but for these.
        """
        assert pending is not None or not self.has_pending, "a request has a pending token that was not handed in"
        logits = _in_rows(logits)
        known = None if pending is None else pending.contiguous()
        num_columns = 1 + max(self.ranked_rows.values(), default=0)
        token_ids = torch.empty(self.num_rows, dtype=torch.int64)
        # Rows that tell of fewer tokens than others leave zeros.
        packed = torch.zeros(self.num_rows + len(self.ranked_rows) * 2 * num_columns, dtype=torch.int64)
        self.library.sample(
            None if self.decoder is None else self.decoder.handle,
            logits.data_ptr(),
            logits.stride(0),
            logits.shape[1],
            self.num_rows,
            self.rows,
            None if known is None else known.data_ptr(),
            token_ids.data_ptr(),
            packed.data_ptr(),
            num_columns,
        )
        return SampledTokens(token_ids=token_ids, packed=packed, ranked_rows=self.ranked_rows)


class NativePlanner:
    """Plans sampling for the library; keeps the tables of penalised sequences."""

    def __init__(self, vocabulary: Vocabulary, library: Library, decoder: Decoder | None) -> None:
        self.tables = CountTables()
        self._library = library
        self._decoder = decoder
        self._vocab_size = vocabulary.size
        self._eos_token_ids = sorted(vocabulary.eos_token_ids)
        # The masks of one step: they are read before the next one is planned.
        self._masks = MaskBuffer(vocabulary.size)

    def plan(self, requests: Sequence[SamplingRequest]) -> NativeSamplingPlan:
        """The sampling plan of a batch."""
        self.tables.begin_step()
        ranked_rows = {row: min(count, self._vocab_size) for row, count in ranked_rows_of(requests).items()}
        places = {row: place for place, row in enumerate(ranked_rows)}
        owners: list[array[int] | array[float]] = []
        rows = bytearray()
        masked = [request.mask for request in requests if request.mask is not None]
        if masked:
            self._masks.fill(masked)
        addresses = (self._masks.address(place) for place in range(len(masked)))
        is_plain = not ranked_rows and not masked
        for row, request in enumerate(requests):
            rules, edits = self._rules(request), self._edits(request, owners)
            is_plain &= rules is _GREEDY and edits is _NO_EDITS
            rows += rules
            rows += edits
            if request.mask is None and row not in places:
                rows += _NO_MASK_NO_RANKS
            else:
                mask = 0 if request.mask is None else next(addresses)
                rows += _LAST.pack(mask, places.get(row, -1), ranked_rows.get(row, 0))
        return NativeSamplingPlan(
            library=self._library,
            decoder=self._decoder,
            num_rows=len(requests),
            rows=bytes(rows),
            owners=owners,
            has_pending=any(request.is_pending and is_penalised(request.sampling) for request in requests),
            ranked_rows=ranked_rows,
            is_plain=is_plain,
        )

    def rank(self, logits: Tensor, token_ids: Sequence[int], num_top: int) -> Tensor:
        """As `pack_ranked`."""
        num_top = min(num_top, self._vocab_size)
        ids = array("q", token_ids)
        logits = _in_rows(logits.float())
        packed = torch.empty(len(ids), 2 * (1 + num_top), dtype=torch.int64)
        address, num_rows = ids.buffer_info()
        self._library.logprobs(
            None if self._decoder is None else self._decoder.handle,
            logits.data_ptr(),
            logits.stride(0),
            logits.shape[1],
            num_rows,
            address,
            num_top,
            packed.data_ptr(),
        )
        return packed

    def _rules(self, request: SamplingRequest) -> bytes:
        params = request.sampling
        if not is_noisy(params):
            return _GREEDY
        temperature = usable_temperature(params)
        least = least_distance(params.min_p, temperature)
        keys = position_key(params.seed, num_known(request))
        return _RULES.pack(params.top_p, *keys, temperature, least, min(params.top_k, self._vocab_size))

    def _edits(self, request: SamplingRequest, owners: "list[array[int] | array[float]]") -> bytes:
        params = request.sampling
        masked = masked_ids(request, self._eos_token_ids, self._vocab_size) if params.min_tokens else []
        has_penalties = is_penalised(params)
        if not masked and not params.logit_bias and not has_penalties:
            return _NO_EDITS
        biased = [token_id for token_id, _ in params.logit_bias]
        parts: list[array[int] | array[float]] = [_NOTHING] * 5
        if masked:
            parts[0] = array("i", masked)
        if biased:
            parts[1:3] = array("i", biased), array("f", bounded_biases(params))
        if has_penalties:
            table = self.tables.table(request)
            # Copies: the table grows, and may move, when the next batch is planned.
            parts[3:] = table.ids[:], table.counts[:]
        owners += parts
        return _EDITS.pack(
            *[part.buffer_info()[0] for part in parts],
            len(masked),
            len(biased),
            len(parts[3]),
            has_penalties and request.is_pending,
            *penalty_rates(params),
        )


def native_sampler(vocabulary: Vocabulary, library: Library, decoder: Decoder | None = None) -> Sampler:
    """A sampler that the library computes on a CPU, on the decoder's threads where one is given."""
    return Sampler(NativePlanner(vocabulary, library, decoder))


def _in_rows(logits: Tensor) -> Tensor:
    """The same numbers, those of a row side by side; rows may lie further apart."""
    return logits if logits.stride(1) == 1 else logits.contiguous()
