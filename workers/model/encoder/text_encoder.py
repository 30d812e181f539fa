"""The runner of an encoder: a batch of texts in, one vector or score for each out."""

import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.encoder_engine import EncodingRequest
from workers.model.architecture.sentence_folder import EncoderFolder
from workers.model.encoder.encoder_network import Batch, Network
from workers.model.encoder.text_pooling import pooled


class TextEncoder:
    """Implements `EncoderRunner`."""

    def __init__(self, network: Network, folder: EncoderFolder) -> None:
        self._network = network
        self._folder = folder

    @torch.inference_mode()
    def encode(self, batch: list[EncodingRequest]) -> list[bytes | None]:
        """The vector or score of each text; None where numbers are not finite."""
        tensors = Batch([one.token_ids for one in batch], [one.second_start for one in batch])
        rows = torch.cat([self._reduced(output) for output in self._network.outputs(tensors)]).cpu()
        is_finite: list[bool] = torch.isfinite(rows).all(dim=1).tolist()
        whole = {False: bytes_of(rows), True: bytes_of(functional.normalize(rows, dim=1))}
        width = len(whole[False]) // len(batch)
        vectors: list[bytes | None] = [None] * len(batch)
        for row, place in enumerate(tensors.order):
            request = batch[place]
            if not is_finite[row]:
                continue
            if request.dimensions is None or request.dimensions >= rows.shape[1]:
                vectors[place] = whole[self._is_unit(request)][row * width : (row + 1) * width]
            else:
                vectors[place] = self._cut(rows[row, : request.dimensions], request)
        return vectors

    def _reduced(self, output: Tensor) -> Tensor:
        """[num_texts, size] in float32: the pooled vectors, or the sigmoid of the logits."""
        pooling = self._folder.pooling
        return torch.sigmoid(output.float()) if pooling is None else pooled(output, pooling)

    def _is_unit(self, request: EncodingRequest) -> bool:
        if self._folder.pooling is None:
            return False
        return self._folder.is_normalized if request.is_normalized is None else request.is_normalized

    def _cut(self, vector: Tensor, request: EncodingRequest) -> bytes:
        """A cut vector is a unit vector again, unless the request wants none."""
        return bytes_of(vector if request.is_normalized is False else functional.normalize(vector, dim=0))


def bytes_of(numbers: Tensor) -> bytes:
    """The numbers as they lie in memory; every processor that torch computes on is little-endian."""
    data: bytes = numbers.contiguous().numpy().tobytes()
    return data
