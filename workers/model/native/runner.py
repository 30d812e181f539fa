"""The engine's Runner on the library: a step is computed by the time `launch` returns."""

from array import array

import torch
from torch import Tensor

from workers.engine.runner import Chunk, Ranked, StepOutput
from workers.model.native.decoder import Decoder
from workers.model.native.library import Batch
from workers.model.sampling.logit_rows import prompt_ranks_of
from workers.model.sampling.sampler import Sampler


class NativeRunner:
    """Runs a decoder of the library. A token's logits do not depend on what else is in its step, bit for bit."""

    num_ahead = 0

    def __init__(self, decoder: Decoder, sampler: Sampler) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._max_rows = decoder.logits.shape[0]
        self._output: StepOutput

    def memory(self) -> tuple[int, int]:
        """Bytes of the weights and of the working memory."""
        return self._decoder.memory()

    @torch.inference_mode()
    def launch(self, chunks: list[Chunk]) -> None:
        """Compute the chunks and draw the next token of each sampled one."""
        lasts = self._compute(chunks)
        sampled = [chunk for chunk in chunks if chunk.is_sampled]
        token_ids: list[int | None] = []
        logprobs: dict[int, Ranked] = {}
        if sampled:
            # Before the scores: the threads that compute these still look for work when it is their turn to draw.
            prepared = self._sampler.prepare(sampled)
            best = self._decoder.head(lasts)
            if prepared.is_plain:
                token_ids = best
            else:
                draws = self._sampler.results(self._sampler.draw(self._decoder.logits[: len(sampled)], prepared))
                token_ids, logprobs = draws.token_ids, draws.logprobs
        self._output = StepOutput(token_ids=token_ids, logprobs=logprobs, prompt_logprobs=self._prompt_logprobs(chunks))

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
        """Logits after each sampled chunk, [num_sampled, vocab_size]."""
        lasts = self._compute(chunks)
        self._decoder.head(lasts)
        return self._decoder.logits[: len(lasts)].clone()

    def _compute(self, chunks: list[Chunk]) -> "array[int]":
        """Run the layers; places in the batch of the sampled chunks' last tokens."""
        token_ids, positions = array("i"), array("i")
        begins, ends, lasts = array("i"), array("i"), array("i")
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
            if chunk.is_sampled:
                lasts.append(len(token_ids) - 1)
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
        return lasts

    def _prompt_logprobs(self, chunks: list[Chunk]) -> dict[int, list[Ranked]]:
        """Of the prompt tokens that follow computed positions, for chunks that asked."""
        told: dict[int, list[Ranked]] = {}
        begin = 0
        for place, chunk in enumerate(chunks):
            if asked := prompt_ranks_of(chunk):
                told[place] = []
                for start in range(0, len(asked.positions), self._max_rows):
                    token_ids = asked.token_ids[start : start + self._max_rows]
                    self._decoder.head(array("i", range(begin + start, begin + start + len(token_ids))))
                    logits = self._decoder.logits[: len(token_ids)]
                    told[place] += self._sampler.rank(logits, token_ids, asked.num_top)
            begin += chunk.end - chunk.start
        return told
