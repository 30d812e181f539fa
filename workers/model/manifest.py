"""The model manifest, from the model's tokenizer and its generation configuration."""

import json

import structlog
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from api.protocol.prompt.model_abilities import abilities_of
from storage.errors import ModelFilesMissing, ModelUnsupported
from storage.model_manifest import GenerationDefaults, ModelManifest

# Without files, transformers makes an empty tokenizer of the model's kind, with a few special tokens at most.
_MIN_VOCABULARY = 16
# The least and the greatest value of each default, as requests have them.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, (1 << 31) - 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),
}

log = structlog.get_logger()


def fast(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer, if the API can load it as well.

    Raises ModelFilesMissing where its files are absent, ModelUnsupported for one that only Python code knows.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelUnsupported(
            "The model has no fast tokenizer (tokenizer.json); tokenizers in Python are not supported"
        )
    if tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False) < _MIN_VOCABULARY:
        raise ModelFilesMissing("The model's tokenizer files are missing (tokenizer.json)")
    return tokenizer


def manifest_of(
    tokenizer: PreTrainedTokenizerFast,
    generation: GenerationConfig | None,
    *,
    model: str,
    context_length: int,
    num_token_ids: int,
) -> ModelManifest:
    """The manifest of the model for the API.

    generation:     the model's `generation_config.json`
    context_length: tokens of prompt and output
    num_token_ids:  rows of the model's embedding
    """
    template, answers = _chat_template(tokenizer), _response_template(tokenizer)
    special_tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return ModelManifest(
        model=model,
        context_length=context_length,
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        chat_template=template,
        special_tokens=special_tokens,
        capabilities={
            "completion": True,
            "chat": template is not None,
            **abilities_of(template, special_tokens, answers),
            "embedding": False,
            "fine_tuning": False,
        },
        num_token_ids=num_token_ids,
        generation_defaults=generation_defaults_of(generation),
        response_template=answers,
    )


def generation_defaults_of(generation: GenerationConfig | None) -> GenerationDefaults:
    """Sampling parameters that the configuration names, without those that no request may have.

    Only what its file says: `to_diff_dict` leaves out the defaults of transformers. `do_sample` says how
    `generate` samples by default and is not looked at, as in vLLM.
    """
    named = {} if generation is None else generation.to_diff_dict()
    values = {name: named[name] for name in _RANGES if named.get(name) is not None}
    legal = {name: value for name, value in values.items() if _is_legal(name, value)}
    for name in sorted(values.keys() - legal.keys()):
        log.warning("generation_default_ignored", name=name, value=str(values[name])[:100])
    return GenerationDefaults(**legal)


def _is_legal(name: str, value: object) -> bool:
    least, greatest = _RANGES[name]
    kinds = int if name == "top_k" else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= greatest


def _chat_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The template for plain chat; a model may bring several by name."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _response_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The tokenizer's own description of its answers, as JSON text."""
    template = getattr(tokenizer, "response_template", None)
    return json.dumps(template, ensure_ascii=False) if isinstance(template, dict) else None
