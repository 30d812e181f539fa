"""What a folder of sentence-transformers says of an encoder: pooling, normalisation, longest text, prompts, dimensions.

Reads JSON files only. Source: `sentence_transformers` 6.2.0, `SentenceTransformer`, `Pooling` and `Transformer`.
"""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from storage.errors import ModelUnsupported

_MODULES = "modules.json"
_SETTINGS = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_PAIR_HEAD = "ForSequenceClassification"


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one, by the names of sentence-transformers."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    LAST = "lasttoken"
    MEAN_SQRT = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"


_POOLING_BY_FLAG = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST,
}


class EncoderFolder(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder as its folder describes it.

    pooling:       None of a cross-encoder, which reads pairs and gives a score
    is_normalized: whether its vectors are unit vectors
    max_len:       tokens of a text; None where the folder leaves it to the tokenizer and the configuration
    is_lowercased: whether texts are lowered before they are tokenized
    prompts:       text before each input, by name
    default_prompt: text before an input where no prompt is named
    dimensions:    numbers that a vector may be cut to, beside its whole length
    """

    pooling: Pooling | None
    is_normalized: bool = False
    max_len: int | None = None
    is_lowercased: bool = False
    prompts: Mapping[str, str] = {}
    default_prompt: str = ""
    dimensions: tuple[int, ...] = ()


def find_encoder(folder: Path) -> EncoderFolder | None:
    """The encoder in a folder; None for a folder that is none, or does not say how its vectors are made.

    Raises ModelUnsupported for one that this platform cannot compute as its authors do.
    """
    try:
        if (folder / _MODULES).is_file():
            return _of_modules(folder, _read(folder / _MODULES))
        return _cross_encoder(_read(folder / "config.json"))
    except (OSError, ValueError) as error:
        raise ModelUnsupported(f"The files of sentence-transformers in {folder} cannot be read: {error}") from error


def _cross_encoder(config: object) -> EncoderFolder | None:
    """A classifier of one label is a cross-encoder: nothing else makes one score of a text."""
    if not isinstance(config, Mapping) or not _names_head(config.get("architectures")):
        return None
    labels = config.get("id2label")
    num_labels = len(labels) if isinstance(labels, Mapping) else config.get("num_labels")
    return EncoderFolder(pooling=None) if num_labels == 1 else None


def _names_head(architectures: object) -> bool:
    return (
        isinstance(architectures, list)
        and bool(architectures)
        and all(isinstance(name, str) and name.endswith(_PAIR_HEAD) for name in architectures)
    )


def _of_modules(folder: Path, modules: object) -> EncoderFolder:
    if not isinstance(modules, Sequence) or not all(isinstance(module, Mapping) for module in modules):
        raise ModelUnsupported(f"{folder / _MODULES} is no list of modules")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    foreign = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if foreign or kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ModelUnsupported(
            f"The encoder is made of {', '.join(kinds) or 'nothing'}; served are a Transformer, Pooling and perhaps "
            "Normalize"
        )
    if modules[0].get("path"):
        raise ModelUnsupported("The encoder's weights lie in a folder of their own, which is not supported")
    settings, extra = _read_if_there(folder / _SETTINGS), _read_if_there(folder / _PROMPTS)
    pooling = _read(folder / str(modules[1].get("path")) / "config.json")
    prompts = _texts(extra.get("prompts"))
    if any(prompts.values()) and isinstance(pooling, Mapping) and pooling.get("include_prompt") is False:
        raise ModelUnsupported("The encoder leaves its prompt out of the pooling, which is not supported")
    max_len = settings.get("max_seq_length")
    return EncoderFolder(
        pooling=_pooling_of(pooling),
        is_normalized=kinds[2:] == ["Normalize"],
        max_len=max_len if isinstance(max_len, int) and max_len > 0 else None,
        is_lowercased=settings.get("do_lower_case") is True,
        prompts=prompts,
        default_prompt=prompts.get(str(extra.get("default_prompt_name")), ""),
        dimensions=_dimensions_of(extra),
    )


def _pooling_of(config: object) -> Pooling:
    """The one pooling that a configuration names, in its old form or its new one."""
    if not isinstance(config, Mapping):
        raise ModelUnsupported("The encoder's pooling has no configuration")
    named = config.get("pooling_mode")
    if named is None:
        modes = [mode for flag, mode in _POOLING_BY_FLAG.items() if config.get(flag) is True]
    else:
        modes = [Pooling(mode) for mode in ([named] if isinstance(named, str) else named)]
    if len(modes) != 1:
        raise ModelUnsupported(f"The encoder pools in {len(modes)} ways at once; one is supported")
    return modes[0]


def _dimensions_of(config: Mapping[str, object]) -> tuple[int, ...]:
    listed = config.get("matryoshka_dimensions")
    if not isinstance(listed, list):
        return ()
    return tuple(sorted({number for number in listed if isinstance(number, int) and number > 0}))


def _texts(prompts: object) -> dict[str, str]:
    if not isinstance(prompts, Mapping):
        return {}
    return {str(name): text for name, text in prompts.items() if isinstance(text, str)}


def _read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_if_there(path: Path) -> Mapping[str, object]:
    found = _read(path) if path.is_file() else {}
    return found if isinstance(found, Mapping) else {}
