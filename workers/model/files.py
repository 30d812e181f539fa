"""A model's files, read by transformers: safetensors only, no code of the model's own."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from storage.errors import ModelFilesMissing, ModelUnsupported
from workers.model.architecture import checks
from workers.model.progress import Report
from workers.model.transformers_progress import reporting

# SentencePiece files, with the version that Mistral appends, and Mistral's own format.
_FOREIGN_TOKENIZERS = ("tokenizer.model*", "tekken*.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model as transformers gives it, with attention of its own.

    num_parameters: counted now; layers that are laid out anew later no longer hold any
    """

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    num_parameters: int


def read(source: str, dtype: torch.dtype, device: torch.device, report: Report) -> ModelFiles:
    """Configuration, tokenizer and weights.

    source: a local folder or a Hugging Face id
    report: called while the weights are loaded

    Raises ModelFilesMissing and ModelUnsupported.
    """
    try:
        with reporting(report):
            return _read(source, dtype, device)
    except OSError as error:
        hint = "give a local folder, or check the name and the network"
        raise ModelFilesMissing(f"{source} could not be read ({_first_line(error)}): {hint}") from error
    except (ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ModelUnsupported(f"transformers cannot load {source} ({_first_line(error)})") from error


def _read(source: str, dtype: torch.dtype, device: torch.device) -> ModelFiles:
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    checks.check_config(config)
    tokenizer = _tokenizer_of(source)
    # Typed by hand: transformers' annotation leaves out that loading info makes it a pair.
    loaded: tuple[PreTrainedModel, dict[str, object]] = AutoModelForCausalLM.from_pretrained(  # type: ignore[assignment]
        source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    model, info = loaded
    checks.check_loaded(model, info)
    model.requires_grad_(False)
    model.to(device)  # type: ignore[arg-type]  # a decorator of transformers hides torch's signature
    return ModelFiles(
        config=config,
        tokenizer=tokenizer,
        model=model,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _tokenizer_of(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer. Raises ModelUnsupported for one that packages would have to read which are not installed.

    transformers itself asks for a package that would not help.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (ValueError, ImportError, KeyError) as error:
        foreign = [file.name for pattern in _FOREIGN_TOKENIZERS for file in sorted(Path(source).glob(pattern))]
        if not foreign or (Path(source) / "tokenizer.json").is_file():
            raise
        raise ModelUnsupported(
            f"The model has its tokenizer as {foreign[0]} only, which cannot be read here: save it as tokenizer.json "
            "(`AutoTokenizer.from_pretrained(...).save_pretrained(...)` of transformers, with sentencepiece and "
            "protobuf installed, or with mistral-common for tekken.json)"
        ) from error
    return tokenizer


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
