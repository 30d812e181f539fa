"""A model's files, read by transformers: safetensors only, no code of the model's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
from workers.model.source import folder_of
from workers.model.tokenizer_files.folder_tokenizer import tokenizer_of_folder
from workers.model.transformers_progress import reporting


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
    with explained(source), reporting(report):
        return _read(source, dtype, device)


@contextmanager
def explained(source: str) -> Iterator[None]:
    """What transformers raises while it reads a model, as ModelFilesMissing and ModelUnsupported."""
    try:
        yield
    except OSError as error:
        hint = "give a local folder, or check the name and the network"
        raise ModelFilesMissing(f"{source} could not be read ({_first_line(error)}): {hint}") from error
    except (ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ModelUnsupported(f"transformers cannot load {source} ({_first_line(error)})") from error


def _read(source: str, dtype: torch.dtype, device: torch.device) -> ModelFiles:
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    checks.check_config(config)
    tokenizer = tokenizer_of(source)
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


def tokenizer_of(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a Hugging Face id, of a SentencePiece or Tekken file where there is no other."""
    folder = folder_of(source)
    made = None if folder is None else tokenizer_of_folder(folder)
    if made is not None:
        return made
    # Where `mistral-common` is installed, transformers would take a tokenizer in Python instead of a tokenizer.json.
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        source, trust_remote_code=False, mistral_format=False
    )
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
