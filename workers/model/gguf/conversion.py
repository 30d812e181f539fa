"""Converts a GGUF file into a folder of safetensors, configuration and tokenizer."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig

from storage.errors import ModelUnsupported
from workers.model.architecture import checks
from workers.model.gguf import gguf_tokenizer
from workers.model.gguf.gguf_weights import read_weights
from workers.model.gguf.header import read_header
from workers.model.gguf.model_shape import configuration_entries
from workers.model.gguf.supported import check_supported
from workers.model.progress import Report


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
    ).save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
