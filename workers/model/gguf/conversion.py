"""Converts a GGUF file into a folder of safetensors, configuration and tokenizer."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from storage.errors import ModelUnsupported
from workers.model.architecture import checks
from workers.model.gguf import gguf_tokenizer
from workers.model.gguf.gguf_weights import read_weights
from workers.model.gguf.header import GgufHeader, read_header
from workers.model.gguf.model_shape import configuration_entries
from workers.model.gguf.supported import check_supported
from workers.model.progress import Report

# Sampling parameters that newer files carry from the model's `generation_config.json`.
_SAMPLING_KEYS = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
}


def convert(path: Path, folder: Path, dtype: torch.dtype, report: Report) -> None:
    """Write the file's model into an empty folder.

    report: called for each tensor

    Raises ModelFilesMissing for a truncated file, ModelUnsupported for one that cannot be converted.
    """
    header = read_header(path, gguf_tokenizer.STRING_ARRAYS)
    check_supported(path, header)
    entries = configuration_entries(path, header)
    try:
        config = AutoConfig.for_model(str(entries.pop("model_type")), **entries, dtype=dtype)
        # Not read here; other programs find the model's class by it.
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
        checks.check_config(config)
        gguf_tokenizer.tokenizer_of(header, path).save_pretrained(folder)
        weights = read_weights(path, header, config, dtype, report)
    except (ValueError, KeyError, NotImplementedError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelUnsupported(f"{path} cannot be converted ({line})") from error
    config.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]  # transformers left it bare
        bos_token_id=header.whole_number("tokenizer.ggml.bos_token_id"),
        eos_token_id=gguf_tokenizer.end_ids_of(header),
        **_sampling_of(header),
    ).save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _sampling_of(header: GgufHeader) -> dict[str, int | float]:
    found = {name: header.metadata.get(key) for name, key in _SAMPLING_KEYS.items()}
    # The file has single precision: 0.6 and not 0.6000000238418579.
    named = {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in found.items()
        if isinstance(value, int | float)
    }
    # Without it the others may not be saved.
    return named | {"do_sample": True} if named else {}
