"""The engine's Runner on the library: a step is computed by the time `launch` returns."""

from array import array

import torch
from torch import Tensor

from workers.engine.runner import Chunk, Ranked, StepOutput
from workers.model.native.decoder import Decoder
from workers.model.native.library import Batch
from workers.model.sampling.logit_rows import prompt_ranks_of
from workers.model.sampling.sampled import SampleResults
from workers.model.sampling.sampler import Sampler
from workers.model.sampling.sampling_rows import SamplingRequest
from workers.model.sampling.step_output import output_of, requests_of


class NativeRunner:
    """Runs a decoder of the library. A token's logits do not depend on what else is in its step, bit for bit."""

    num_ahead = 0

    def __init__(self, decoder: Decoder, sampler: Sampler) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._max_rows = decoder.logits.shape[0]
        self._output: StepOutput

    @property
    def instruction_set(self) -> str:
        """What the kernels compute with."""
        return self._decoder.instruction_set

    def memory(self) -> tuple[int, int]:
        """Bytes of the weights and of the working memory."""
        return self._decoder.memory()

    @torch.inference_mode()
    def launch(self, chunks: list[Chunk]) -> None:
        """Compute the chunks and sample the tokens that they want."""
        rows = self._compute(chunks)
        requests = requests_of(chunks)
        results = None
        if requests:
            # As many rows at once as the decoder has logits for; a plain step never has more.
            parts = [
                self._sample(rows[start : start + self._max_rows], requests[start : start + self._max_rows])
                for start in range(0, len(requests), self._max_rows)
            ]
            results = parts[0] if len(parts) == 1 else _joined(parts)
        self._output = output_of([chunk.num_logits for chunk in chunks], results, self._prompt_logprobs(chunks))

    def _sample(self, rows: "array[int]", requests: list[SamplingRequest]) -> SampleResults:
        # Before the scores: the threads that compute these still look for work when it is their turn to sample.
        prepared = self._sampler.prepare(requests)
        best = self._decoder.head(rows)
        if prepared.is_plain:
            return SampleResults(token_ids=best)
        return self._sampler.results(self._sampler.sample_prepared(self._decoder.logits[: len(requests)], prepared))

    def collect(self) -> StepOutput:
        """What the launch yielded."""
        return self._output

    def clear(self, blocks: list[int]) -> None:
        """Zero the blocks."""
        self._decoder.clear(blocks)

    def reset(self) -> None:
        """Zero all blocks."""
        self._decoder.reset()

    def logits(self, chunks: list[Chunk]) -> Tensor:
        """Logits of the positions that the chunks want, at most `max_logit_rows`, [num_rows, vocab_size]."""
        rows = self._compute(chunks)
        self._decoder.head(rows)
        return self._decoder.logits[: len(rows)].clone()

    def _compute(self, chunks: list[Chunk]) -> "array[int]":
        """Run the layers; places in the batch of the tokens whose logits are wanted."""
        token_ids, positions = array("i"), array("i")
        begins, ends, rows = array("i"), array("i"), array("i")
        tables = array("Q")
        for chunk in chunks:
            begins.append(len(token_ids))
            if chunk.end - chunk.start == 1:
                token_ids.append(chunk.tokens[chunk.start])
                positions.append(chunk.start)
            else:
                token_ids.extend(chunk.tokens[chunk.start : chunk.end])
                positions.extend(range(chunk.start, chunk.end))
            ends.append(len(token_ids))
            tables.append(chunk.blocks.buffer_info()[0])
            rows.extend(range(len(token_ids) - chunk.num_logits, len(token_ids)))
        batch = Batch(
            num_tokens=len(token_ids),
            num_sequences=len(chunks),
            token_ids=token_ids.buffer_info()[0],
            positions=positions.buffer_info()[0],
            begins=begins.buffer_info()[0],
            ends=ends.buffer_info()[0],
            tables=tables.buffer_info()[0],
        )
        self._decoder.step(batch)
        return rows

    def _prompt_logprobs(self, chunks: list[Chunk]) -> dict[int, list[Ranked]]:
        """Log probabilities of the prompt tokens after the computed positions, for chunks that asked for them."""
        reported: dict[int, list[Ranked]] = {}
        begin = 0
        for place, chunk in enumerate(chunks):
            if asked := prompt_ranks_of(chunk):
                reported[place] = []
                for start in range(0, len(asked.positions), self._max_rows):
                    token_ids = asked.token_ids[start : start + self._max_rows]
                    self._decoder.head(array("i", range(begin + start, begin + start + len(token_ids))))
                    logits = self._decoder.logits[: len(token_ids)]
                    reported[place] += self._sampler.rank(logits, token_ids, asked.num_top)
            begin += chunk.end - chunk.start
        return reported


def _joined(parts: list[SampleResults]) -> SampleResults:
    """Samples of all rows, joined from samples of their parts."""
    token_ids: list[int | None] = []
    logprobs: dict[int, Ranked] = {}
    for part in parts:
        logprobs |= {len(token_ids) + row: ranked for row, ranked in part.logprobs.items()}
        token_ids += part.token_ids
    return SampleResults(token_ids=token_ids, logprobs=logprobs)
