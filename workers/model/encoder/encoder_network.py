"""The networks of encoders: batches of texts through a model of transformers, packed where the model allows it."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.model.encoder.packed_attention import IMPLEMENTATION, Packing, attach, runs_of


class Batch:
    """Texts as tensors, the shortest first, behind each other.

    order: the place in the request of each text of the batch
    """

    def __init__(self, texts: Sequence[Sequence[int]], second_starts: Sequence[int | None]) -> None:
        self.order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        lengths = [len(texts[place]) for place in self.order]
        self.runs = runs_of(lengths)
        self.token_ids = torch.tensor([token_id for place in self.order for token_id in texts[place]])
        self.positions = torch.cat([torch.arange(run.num_tokens).repeat(run.num_texts) for run in self.runs])
        self.segments = torch.zeros_like(self.token_ids)
        begin = 0
        for place, length in zip(self.order, lengths, strict=True):
            second = second_starts[place]
            if second is not None:
                self.segments[begin + second : begin + length] = 1
            begin += length


class Network(Protocol):
    """What computes an encoder."""

    def outputs(self, batch: Batch) -> Iterator[Tensor]:
        """Of each run, in order, the hidden states, [num_texts, num_tokens, size], or the logits, [num_texts, 1]."""


class PackedNetwork:
    """All texts of a batch in one row: every matrix is multiplied once, and nothing is computed for padding."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._packing = Packing()
        self._first_position = first_position_of(model)
        self._takes_segments = takes_segments(model)
        self._takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        attach(model, self._packing)
        model.set_attn_implementation(IMPLEMENTATION)

    def outputs(self, batch: Batch) -> Iterator[Tensor]:
        """As `Network`: hidden states."""
        device = self._model.device
        self._packing.runs = batch.runs
        arguments: dict[str, object] = {"position_ids": (batch.positions + self._first_position)[None].to(device)}
        if self._takes_segments:
            arguments["token_type_ids"] = batch.segments[None].to(device)
        if self._takes_cache:
            arguments["use_cache"] = False
        hidden: Tensor = self._model(input_ids=batch.token_ids[None].to(device), **arguments)[0][0]
        for run in batch.runs:
            yield hidden[run.begin : run.end].view(run.num_texts, run.num_tokens, -1)


class PlainNetwork:
    """The unmodified model: texts of equal length together, so that there is no padding here either."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._takes_segments = takes_segments(model)

    def outputs(self, batch: Batch) -> Iterator[Tensor]:
        """As `Network`: hidden states, or the logits of a classifier."""
        device = self._model.device
        for run in batch.runs:
            shape = (run.num_texts, run.num_tokens)
            token_ids = batch.token_ids[run.begin : run.end].view(shape).to(device)
            arguments: dict[str, Tensor] = {"attention_mask": torch.ones_like(token_ids)}
            if self._takes_segments:
                arguments["token_type_ids"] = batch.segments[run.begin : run.end].view(shape).to(device)
            yield self._model(input_ids=token_ids, **arguments)[0]


def takes_segments(model: PreTrainedModel) -> bool:
    """Whether the model tells the texts of a pair apart."""
    parameters = inspect.signature(model.forward).parameters
    return "token_type_ids" in parameters and (getattr(model.config, "type_vocab_size", 0) or 0) > 1


def first_position_of(model: PreTrainedModel) -> int:
    """The position of a text's first token: models of RoBERTa's kind count from behind the padding's."""
    embeddings = getattr(model.base_model, "embeddings", None)
    if not hasattr(embeddings, "create_position_ids_from_input_ids"):
        return 0
    padding = getattr(embeddings, "padding_idx", None)
    assert isinstance(padding, int)
    return padding + 1
