"""Runs a transformers model one step at a time over a cache of blocks."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.engine.runner import Chunk, OutOfDeviceMemory, Ranked, StepOutput
from workers.model.sampling.logit_rows import prompt_ranks_of, sampled_rows, wanted_positions
from workers.model.sampling.sampler import Sampler
from workers.model.sampling.step_output import output_of, requests_of
from workers.model.torch.block_attention import Stage
from workers.model.torch.cache import BlockCache
from workers.model.torch.layout import Layout


class TorchRunner:
    """The engine's Runner on torch.

    The model's attention has been replaced by one that reads the layout of the current step.
    """

    num_ahead = 0

    def __init__(self, model: PreTrainedModel, cache: BlockCache, stage: Stage, sampler: Sampler) -> None:
        self._model = model
        self._cache = cache
        self._stage = stage
        self._sampler = sampler
        self._dtype = model.dtype
        self._device = model.device
        self._output: StepOutput

    @torch.inference_mode()
    def launch(self, chunks: list[Chunk]) -> None:
        """Compute the chunks and sample the tokens that they want.

        Raises OutOfDeviceMemory where that is why it failed.
        """
        try:
            self._output = self._step(chunks)
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory from error

    def collect(self) -> StepOutput:
        """What the launch yielded."""
        return self._output

    def clear(self, blocks: list[int]) -> None:
        """Zero the blocks."""
        self._cache.clear(blocks)

    def reset(self) -> None:
        """Zero all blocks."""
        self._cache.reset()

    @torch.inference_mode()
    def logits(self, chunks: list[Chunk]) -> Tensor:
        """Logits after each chunk, all of which are sampled, [num_chunks, vocab_size]."""
        return self._compute(chunks, [range(chunk.end - 1, chunk.end) for chunk in chunks])

    def _step(self, chunks: list[Chunk]) -> StepOutput:
        wanted = [wanted_positions(chunk) for chunk in chunks]
        logits = self._compute(chunks, wanted)
        sampled = sampled_rows(chunks, wanted)
        rows = logits if len(sampled) == len(logits) else logits[sampled]
        results = self._sampler.sample(rows, requests_of(chunks)) if sampled else None
        return output_of([chunk.num_logits for chunk in chunks], results, self._prompt_logprobs(chunks, wanted, logits))

    def _compute(self, chunks: list[Chunk], wanted: list[range]) -> Tensor:
        """Logits after the wanted positions of each chunk, one chunk after another; one row of no use where none is."""
        places = []
        begin = 0
        for chunk, positions in zip(chunks, wanted, strict=True):
            places += [begin + position - chunk.start for position in positions]
            begin += chunk.end - chunk.start
        layout = Layout(chunks, places, block_size=self._cache.block_size, dtype=self._dtype, device=self._device)
        self._stage.layout = layout
        output = self._model(
            input_ids=layout.token_ids.unsqueeze(0),
            position_ids=layout.positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=0 if layout.last is None else layout.last,
        )
        logits: Tensor = output.logits[0]
        return logits

    def _prompt_logprobs(self, chunks: list[Chunk], wanted: list[range], logits: Tensor) -> dict[int, list[Ranked]]:
        """Log probabilities of the prompt tokens after the computed positions, for chunks that asked for them."""
        by_place = {}
        begin = 0
        for place, (chunk, positions) in enumerate(zip(chunks, wanted, strict=True)):
            if asked := prompt_ranks_of(chunk):
                rows = logits[begin : begin + len(asked.positions)]
                by_place[place] = self._sampler.rank(rows, asked.token_ids, asked.num_top)
            begin += len(positions)
        return by_place
