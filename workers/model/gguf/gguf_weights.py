"""The weights of a GGUF file under transformers' names, as plain numbers.

transformers' own reader gives the same (a test compares them), but parses all metadata several times through views of
numpy and builds its table of names once for each module: six times the CPU time (decision 0053).
"""

from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig

from storage.errors import ModelFilesMissing, ModelUnsupported
from workers.model.gguf.header import GgufHeader, StoredTensor
from workers.model.gguf.supported import ROPE_TENSORS
from workers.model.progress import Phase, Report

_SUFFIXES = (".weight", ".bias")


def read_weights(
    path: Path, header: GgufHeader, config: PreTrainedConfig, dtype: torch.dtype, report: Report
) -> dict[str, Tensor]:
    """Every weight of the model; a tied head is the embedding and is left out.

    Raises ModelFilesMissing for weights that the file has not, ModelUnsupported for those that the model has not.
    """
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in _parameters(config)}
    name_by_stored = _names(header, config, list(shapes))
    _check(path, header, {stored: shapes[name] for stored, name in name_by_stored.items()})
    data = np.memmap(path, mode="r", dtype=np.uint8)
    weights: dict[str, Tensor] = {}
    report(Phase.CONVERTING, 0, len(name_by_stored))
    for number, (stored, name) in enumerate(name_by_stored.items(), start=1):
        values = _in_order(_numbers(data, header, header.tensors[stored]), stored, header, config)
        weights[name] = torch.from_numpy(np.require(values, requirements=("C", "W"))).to(dtype)
        report(Phase.CONVERTING, number, len(name_by_stored))
    return weights


def _parameters(config: PreTrainedConfig) -> list[tuple[str, Tensor]]:
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # transformers left it bare
    return list(model.named_parameters())


def _names(header: GgufHeader, config: PreTrainedConfig, names: list[str]) -> dict[str, str]:
    """transformers' name of each weight, by its name in the file."""
    [kind] = [kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == header.architecture]
    table = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    found = {name: table.get_name(name, try_suffixes=_SUFFIXES) for name in names}
    unknown = sorted(name for name, stored in found.items() if stored is None)
    if unknown:
        raise ModelUnsupported(f"GGUF has no name for {unknown[0]} of {config.model_type}")
    return {str(stored): name for name, stored in found.items()}


def _check(path: Path, header: GgufHeader, shapes: dict[str, tuple[int, ...]]) -> None:
    absent = sorted(shapes.keys() - header.tensors.keys())
    if absent:
        raise ModelFilesMissing(f"{path} lacks {len(absent)} weights, the first is {absent[0]}")
    unused = sorted(header.tensors.keys() - shapes.keys() - ROPE_TENSORS)
    if unused:
        raise ModelUnsupported(
            f"{path} holds weights that its architecture has not in transformers, the first is {unused[0]}: this "
            "variant is not supported"
        )
    for name, shape in shapes.items():
        if header.tensors[name].shape != shape:
            raise ModelUnsupported(f"{path} holds {name} of {header.tensors[name].shape} instead of {shape}")


def _numbers(data: NDArray[np.uint8], header: GgufHeader, tensor: StoredTensor) -> NDArray[np.float32]:
    """A tensor's numbers in float32."""
    shape = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.quantization)
    start = header.data_start + tensor.offset
    stored = data[start : start + int(np.prod(shape))].reshape(shape)
    values: NDArray[np.float32] = gguf.dequantize(stored, tensor.quantization)
    return values.reshape(tensor.shape)


def _in_order(
    values: NDArray[np.float32], stored: str, header: GgufHeader, config: PreTrainedConfig
) -> NDArray[np.float32]:
    """The numbers as transformers has them.

    Source: `LlamaModel.permute` and `Gemma2Model.modify_tensors` of
    https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py
    """
    if header.architecture == "llama" and ".attn_q." in stored:
        return _split_halves(values, config.num_attention_heads)
    if header.architecture == "llama" and ".attn_k." in stored:
        return _split_halves(values, config.num_key_value_heads)
    if header.architecture.startswith("gemma") and stored.endswith("norm.weight"):
        # The file's norms are factors, transformers' count from one.
        return values - np.float32(1.0)
    return values


def _split_halves(values: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """The file pairs the rows of a head that are rotated together, transformers has them a half of the head apart."""
    num_pairs = values.shape[0] // num_heads // 2
    return values.reshape(num_heads, num_pairs, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
