"""The model as a function of a step's tables."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.model.gpu.attention import TableStage
from workers.model.gpu.step_tables import StepTables


class Network:
    """A transformers model whose attention reads the tables of the current step."""

    def __init__(self, model: PreTrainedModel, stage: TableStage) -> None:
        self._model = model
        self._stage = stage
        self.device = model.device

    def compute(self, tables: StepTables, last_tokens: Tensor, last: Tensor | None) -> Tensor:
        """Logits, [num_wanted, vocab_size]; nothing here depends on what the tables hold, only on their shape.

        last_tokens: [max_running] int64, tokens that the launch before sampled
        last:  [num_wanted] places in the batch whose logits are wanted; None is every place
        """
        self._stage.tables = tables
        sources = tables.sources.long()
        token_ids = torch.where(sources >= 0, last_tokens[sources.clamp(min=0)], tables.token_ids.long())
        output = self._model(
            input_ids=token_ids.unsqueeze(0),
            position_ids=tables.positions.long().unsqueeze(0),
            use_cache=False,
            logits_to_keep=0 if last is None else last,
        )
        logits: Tensor = output.logits[0]
        return logits
