"""Models for the benches: random weights of a standard architecture with a real tokenizer, always the same.

python -m bench.models FOLDER    makes the 40M-parameter model there, if it is not there yet
"""

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from bench.byte_level import byte_level_bpe

_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_END_OF_TURN = "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Measures of a Qwen3-shaped model; the default has 40M parameters."""

    num_layers: int = 10
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 64
    vocab_size: int = 16384
    context_length: int = 4096


def make_model(folder: Path, size: ModelSize | None = None) -> Path:
    """The folder of a random Qwen3-shaped model (float32 safetensors, tokenizer, chat template).

    The weights are the same on every machine with this version of torch; a folder that holds a model is left alone.
    Its end-of-turn id ends a sequence, though random weights hardly ever sample it.
    """
    if (folder / "config.json").is_file():
        return folder
    size = size or ModelSize()
    tokenizer = _tokenizer(size.vocab_size)
    end_of_turn = tokenizer.convert_tokens_to_ids(_END_OF_TURN)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(_config(size, end_of_turn))
    model.generation_config = GenerationConfig(eos_token_id=end_of_turn, pad_token_id=0, do_sample=False)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _config(size: ModelSize, end_of_turn: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_kv_heads,
        head_dim=size.head_dim,
        max_position_embeddings=size.context_length,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=end_of_turn,
        pad_token_id=0,
    )


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the standard library's own sources."""
    tokenizer = byte_level_bpe(_texts(), vocab_size, _SPECIAL_TOKENS)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END_OF_TURN, pad_token="<|endoftext|>")
    fast.chat_template = _CHAT_TEMPLATE
    return fast


def _texts() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    print(make_model(Path(sys.argv[1])))
