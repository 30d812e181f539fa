"""What a model is and how a CPU worker would run it: `python -m workers.model.describe SOURCE`, as one JSON object.

Reads no weights and loads no torch.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from storage.errors import PlatformError
from storage.model_manifest import ModelDescription
from workers.engine.memory import usual_num_positions
from workers.model.architecture.families import config_obstacle, head_dim_of, native_obstacle, text_config
from workers.model.architecture.sentence_folder import EncoderFolder, find_encoder
from workers.model.gguf.header import GgufHeader, read_header
from workers.model.gguf.model_shape import configuration_entries
from workers.model.gguf.supported import ROPE_TENSORS, check_supported
from workers.model.resources.main_memory import cpu_cache_budget_bytes
from workers.model.resources.memory_options import LoadLimits
from workers.model.source import folder_of, source_of

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}
# Python, torch, transformers and the working memory of a step.
_PROCESS_BYTES = 400 << 20
_LICENCE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)
_README_BYTES = 4096


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of one kind tell; `config` in the words of config.json."""

    config: Mapping[str, object]
    num_parameters: int
    licence: str | None
    encoder: EncoderFolder | None = None


def describe(source: str, dtype: str) -> ModelDescription:
    """The model behind a source, as `source_of` knows it."""
    try:
        found = source_of(source, may_download=False)
        if isinstance(found, Path):
            header = read_header(found)
            check_supported(found, header)
            facts = _of_gguf(found, header)
        else:
            folder = folder_of(found)
            if folder is None:
                return ModelDescription(source=source, reason=f"{source} is not on this machine: pull it first")
            facts = _of_folder(folder)
    except PlatformError as error:
        return ModelDescription(source=source, runs="refused", reason=error.message)
    except (OSError, ValueError, KeyError) as error:
        return ModelDescription(source=source, runs="refused", reason=f"{source} cannot be read: {error}")
    return _described(source, facts, dtype)


def _described(source: str, facts: _Facts, dtype: str) -> ModelDescription:
    if facts.encoder is not None:
        return _described_encoder(source, facts, facts.encoder, dtype)
    text = text_config(facts.config)
    refused, slow = config_obstacle(facts.config), native_obstacle(facts.config, dtype)
    context_length = text.get("max_position_embeddings")
    return ModelDescription(
        source=source,
        architecture=str(facts.config.get("model_type")),
        num_parameters=facts.num_parameters,
        context_length=context_length if isinstance(context_length, int) else None,
        licence=facts.licence,
        runs="refused" if refused else "torch" if slow else "native",
        reason=refused or slow,
        dtype=dtype,
        memory_bytes=None if refused else _memory_bytes(facts, dtype),
    )


def _described_encoder(source: str, facts: _Facts, encoder: EncoderFolder, dtype: str) -> ModelDescription:
    positions = text_config(facts.config).get("max_position_embeddings")
    known = [number for number in (encoder.max_len, positions) if isinstance(number, int)]
    return ModelDescription(
        source=source,
        architecture=str(facts.config.get("model_type")),
        num_parameters=facts.num_parameters,
        context_length=min(known, default=None),
        licence=facts.licence,
        runs="torch",
        reason="it is an encoder, whose texts torch computes",
        dtype=dtype,
        # The weights, and their copy in the layout of the matrix products.
        memory_bytes=2 * facts.num_parameters * _ITEM_BYTES[dtype] + _PROCESS_BYTES,
    )


def _memory_bytes(facts: _Facts, dtype: str) -> int | None:
    """Weights once, a tied head as a matrix of its own, and the cache that a worker takes by itself."""
    text = text_config(facts.config)
    head_dim, item_bytes, limits = head_dim_of(text), _ITEM_BYTES[dtype], LoadLimits()
    wanted = ("max_position_embeddings", "num_hidden_layers", "num_attention_heads", "vocab_size", "hidden_size")
    numbers = [number for name in wanted if isinstance(number := text.get(name), int)]
    if head_dim is None or len(numbers) < len(wanted):
        return None
    context_length, num_layers, num_heads, vocab_size, hidden_size = numbers
    num_kv_heads = text.get("num_key_value_heads")
    token_items = 2 * num_layers * head_dim * (num_kv_heads if isinstance(num_kv_heads, int) else num_heads)
    positions = usual_num_positions(min(context_length, limits.max_len), limits.max_running)
    cache_bytes = min(positions * token_items * item_bytes, cpu_cache_budget_bytes())
    head_items = vocab_size * hidden_size if text.get("tie_word_embeddings") else 0
    return (facts.num_parameters + head_items) * item_bytes + cache_bytes + _PROCESS_BYTES


def _of_gguf(path: Path, header: GgufHeader) -> _Facts:
    return _Facts(
        config=configuration_entries(path, header),
        num_parameters=sum(tensor.num_elements for name, tensor in header.tensors.items() if name not in ROPE_TENSORS),
        licence=header.text("general.license"),
    )


def _of_folder(folder: Path) -> _Facts:
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace")[:_README_BYTES] if readme.is_file() else ""
    licence = _LICENCE.search(text)
    return _Facts(
        config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
        num_parameters=sum(_num_elements(file) for file in folder.glob("*.safetensors")),
        licence=None if licence is None else licence[1],
        encoder=find_encoder(folder),
    )


def _num_elements(file: Path) -> int:
    """Numbers in a safetensors file.

    Source: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, data)
    """
    with file.open("rb") as opened:
        header: dict[str, dict[str, list[int]]] = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def main() -> None:
    """Print the description of the source on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="folder, GGUF file, ORG/REPO:FILE.gguf or Hugging Face id")
    parser.add_argument("--dtype", choices=sorted(_ITEM_BYTES), default="float32")
    options = parser.parse_args()
    sys.stdout.write(msgspec.json.encode(describe(options.source, options.dtype)).decode() + "\n")


if __name__ == "__main__":
    main()
