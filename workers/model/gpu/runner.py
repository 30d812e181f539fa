"""The engine's Runner for CUDA: a launch never waits for the device, which keeps sampled tokens for the next launch."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import structlog
import torch
from torch import Tensor

from workers.engine.runner import Chunk, OutOfDeviceMemory, Ranked, StepOutput
from workers.model.gpu.graphs import DecodeGraphs, bucket_of, buckets_of
from workers.model.gpu.network import Network
from workers.model.gpu.step_tables import StepTables, pack, shape_of
from workers.model.sampling.logit_rows import prompt_ranks_of, sampled_rows, wanted_positions
from workers.model.sampling.sampled import SampledTokens
from workers.model.sampling.sampler import Sampler
from workers.model.sampling.step_output import output_of, requests_of
from workers.model.sampling.token_logprobs import pack_ranked, unpack_ranked
from workers.model.sampling.upload import upload
from workers.model.torch.cache import BlockCache

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _PromptRanks:
    """Log probabilities of prompt tokens, in an asynchronous copy to the host.

    lengths: by place in the chunks, how many rows of `packed` are its own and how many alternatives each tells
    """

    packed: Tensor
    lengths: dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """A launch that was not collected yet; its event is reached when the copies on the host are complete.

    counts: tokens that each chunk samples
    """

    counts: list[int]
    tokens: SampledTokens | None
    prompt: _PromptRanks | None
    event: torch.cuda.Event | None


class GpuRunner:
    """Steps of a model over block tables.

    Steps in which each sequence has one token use the buffers of their bucket, and its CUDA graph where there is
    one. On a CPU it computes the same, without graphs.
    """

    num_ahead = 1

    def __init__(
        self, network: Network, cache: BlockCache, sampler: Sampler, *, max_running: int, max_len: int
    ) -> None:
        self._network = network
        self._cache = cache
        self._sampler = sampler
        self._device = network.device
        self._is_cuda = network.device.type == "cuda"
        self._width = -(-max_len // cache.block_size)
        self._buckets = buckets_of(max_running)
        self._graphs = DecodeGraphs(network, self._buckets, self._width)
        self._rows: dict[str, int] = {}
        self._last = torch.zeros(max_running, dtype=torch.int64, device=self._device)
        self._flights: deque[_Flight] = deque()

    @property
    def num_graphs(self) -> int:
        """Buckets whose steps are replayed."""
        return self._graphs.num_captured

    def capture(self) -> None:
        """Capture the decode steps of every bucket; without success they run one operation at a time."""
        self._graphs.capture(self._last)

    def release_graphs(self) -> None:
        """Release the graphs; decode steps then run one operation at a time."""
        self._graphs.release()

    @torch.inference_mode()
    def launch(self, chunks: list[Chunk]) -> None:
        """Begin a step. Raises OutOfDeviceMemory where the device has too little left."""
        try:
            self._flights.append(self._launch(chunks))
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory from error

    def collect(self) -> StepOutput:
        """The oldest launch's output; waits for the device."""
        flight = self._flights.popleft()
        try:
            if flight.event is not None:
                flight.event.synchronize()
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory from error
        results = None if flight.tokens is None else self._sampler.results(flight.tokens)
        return output_of(flight.counts, results, _unpacked(flight.prompt) if flight.prompt else {})

    @torch.inference_mode()
    def clear(self, blocks: list[int]) -> None:
        """Zero the blocks, after what was launched before."""
        self._cache.clear(blocks)

    @torch.inference_mode()
    def reset(self) -> None:
        """Wait for launches under way, forget them and zero all blocks."""
        self._flights.clear()
        self._rows = {}
        if self._is_cuda:
            torch.cuda.synchronize(self._device)
            # What a step that ran out of memory left in pieces may serve the smaller ones that follow.
            torch.cuda.empty_cache()
        self._cache.reset()

    @torch.inference_mode()
    def logits(self, chunks: list[Chunk]) -> Tensor:
        """Logits after each chunk, all of which are sampled, [num_chunks, vocab_size]."""
        wanted = [range(chunk.end - 1, chunk.end) for chunk in chunks]
        return self._compute(chunks, wanted)

    def _launch(self, chunks: list[Chunk]) -> _Flight:
        wanted = [wanted_positions(chunk) for chunk in chunks]
        logits = self._compute(chunks, wanted)
        # Before anything is sampled: edits are made in place.
        prompt = self._prompt_ranks(chunks, wanted, logits)
        rows = sampled_rows(chunks, wanted)
        tokens = None
        if rows:
            is_whole = rows == list(range(len(logits)))
            tokens = self._sample(logits if is_whole else logits[upload(rows, torch.int64, self._device)], chunks)
        sampled = [chunk.sequence_id for chunk in chunks if chunk.num_logits]
        self._rows = {sequence_id: row for row, sequence_id in enumerate(sampled)}
        return self._flight([chunk.num_logits for chunk in chunks], tokens, prompt)

    def _compute(self, chunks: list[Chunk], wanted: list[range]) -> Tensor:
        """Logits after the wanted positions of each chunk, one chunk after another; one row of no use where none is."""
        is_decode = all(chunk.end - chunk.start == 1 for chunk in chunks)
        bucket = bucket_of(len(chunks), self._buckets) if is_decode else None
        shape = shape_of(chunks, self._width, bucket)
        packed = pack(chunks, shape, self._rows, block_size=self._cache.block_size, is_pinned=self._is_cuda)
        if bucket is not None:
            logits = self._graphs.run(bucket, packed, self._last)[: len(chunks)]
            rows = [row for row, positions in enumerate(wanted) if positions]
            return logits if len(rows) == len(chunks) else logits[upload(rows or [0], torch.int64, self._device)]
        tables = StepTables.new(shape, self._device)
        tables.send(packed)
        places = _places(chunks, wanted)
        last = None if len(places) == shape.num_tokens else upload(places or [0], torch.int64, self._device)
        return self._network.compute(tables, self._last, last)

    def _sample(self, logits: Tensor, chunks: Sequence[Chunk]) -> SampledTokens:
        """Sample a token for each row, and keep the last of each chunk for the next launch."""
        requests = requests_of(chunks)
        prepared = self._sampler.prepare(requests)
        pending = None
        if any(one.is_pending for one in requests):
            rows = [self._rows[one.sequence_id] if one.is_pending else 0 for one in requests]
            pending = self._last[upload(rows, torch.int64, self._device)]
        tokens = self._sampler.sample_prepared(logits, prepared, pending)
        lasts = [end - 1 for end in accumulate(chunk.num_logits for chunk in chunks if chunk.num_logits)]
        kept = tokens.token_ids
        if len(lasts) < len(requests):
            kept = kept[upload(lasts, torch.int64, self._device)]
        self._last[: len(lasts)].copy_(kept)
        return tokens

    def _prompt_ranks(self, chunks: list[Chunk], wanted: list[range], logits: Tensor) -> _PromptRanks | None:
        """Log probabilities of the prompt tokens after the computed positions, for chunks that asked for them."""
        rows: list[int] = []
        token_ids: list[int] = []
        lengths = {}
        begin = 0
        for place, (chunk, positions) in enumerate(zip(chunks, wanted, strict=True)):
            if asked := prompt_ranks_of(chunk):
                rows += range(begin, begin + len(asked.positions))
                token_ids += asked.token_ids
                lengths[place] = (len(asked.positions), asked.num_top)
            begin += len(positions)
        if not rows:
            return None
        places, ids = upload(rows, torch.int64, self._device), upload(token_ids, torch.int64, self._device)
        packed = pack_ranked(logits[places], ids, max(num_top for _, num_top in lengths.values()))
        return _PromptRanks(packed=packed, lengths=lengths)

    def _flight(self, counts: list[int], tokens: SampledTokens | None, prompt: _PromptRanks | None) -> _Flight:
        if not self._is_cuda:
            return _Flight(counts=counts, tokens=tokens, prompt=prompt, event=None)
        if tokens is not None:
            tokens = replace(tokens, packed=_on_its_way(tokens.packed))
        if prompt is not None:
            prompt = replace(prompt, packed=_on_its_way(prompt.packed))
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch left it bare
        event.record()
        return _Flight(counts=counts, tokens=tokens, prompt=prompt, event=event)


def _on_its_way(tensor: Tensor) -> Tensor:
    """An asynchronous copy on the host, complete when everything launched so far is done."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _places(chunks: Sequence[Chunk], wanted: Sequence[range]) -> list[int]:
    """Indices in the batch of the wanted positions."""
    places = []
    begin = 0
    for chunk, positions in zip(chunks, wanted, strict=True):
        places += [begin + position - chunk.start for position in positions]
        begin += chunk.end - chunk.start
    return places


def _unpacked(prompt: _PromptRanks) -> dict[int, list[Ranked]]:
    num_tops = [num_top for length, num_top in prompt.lengths.values() for _ in range(length)]
    ranked = iter(unpack_ranked(prompt.packed.cpu(), num_tops))
    return {place: [next(ranked) for _ in range(length)] for place, (length, _) in prompt.lengths.items()}
