"""Tiny models with random weights, saved as real ones are: what the model room's tests load."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from tests.text import tokenizers

CONTEXT_LENGTH = 128
END_OF_TURN = 3
_CHAT_TEMPLATE = "{% for message in messages %}<s>{{ message.content }}<|im_end|>{% endfor %}"
_CONFIG: dict[str, object] = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT_LENGTH,
    # Tied, most of them would repeat their last token.
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": END_OF_TURN,
}
# Architectures that know other names for the same things, or whose heads divide the hidden size.
_WITHOUT_HEAD_DIM = frozenset({"gpt2", "opt", "falcon", "gpt_neox", "phi", "phi3", "bloom", "stablelm"})


def make_tiny(
    folder: Path, model_type: str = "qwen3", *, eos_token_id: object = END_OF_TURN, **changes: object
) -> Path:
    """A folder with a tiny model of the architecture, its tokenizer and its generation configuration.

    changes: configuration beside or instead of the tiny measures
    """
    torch.manual_seed(0)
    known = {
        name: value for name, value in _CONFIG.items() if name != "head_dim" or model_type not in _WITHOUT_HEAD_DIM
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(known | changes)))
    _mix(model)
    model.generation_config = GenerationConfig(eos_token_id=eos_token_id, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.byte_level(), bos_token="<s>", eos_token="<|im_end|>", unk_token="<unk>"
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def _mix(model: torch.nn.Module) -> None:
    """Weights so large that tokens depend on all that came before; with the usual small ones they hardly do."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                is_embedding = "embed" in name or "wte" in name or "wpe" in name
                parameter.normal_(0.0, 0.2 if is_embedding else 2.0 / parameter.shape[-1] ** 0.5)
