"""The model manifest, from the model's tokenizer."""

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from storage.contract import ModelManifest
from storage.errors import ModelFilesMissing, ModelUnsupported

# Without files, transformers makes an empty tokenizer of the model's kind, with a few special tokens at most.
_MIN_VOCABULARY = 16


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
    tokenizer: PreTrainedTokenizerFast, *, model: str, context_length: int, num_token_ids: int
) -> ModelManifest:
    """The manifest of the model for the API.

    context_length: tokens of prompt and output
    num_token_ids:  rows of the model's embedding
    """
    template = _chat_template(tokenizer)
    return ModelManifest(
        model=model,
        context_length=context_length,
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        chat_template=template,
        special_tokens={name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        capabilities={"completion": True, "chat": template is not None, "embedding": False, "fine_tuning": False},
        num_token_ids=num_token_ids,
    )


def _chat_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The template for plain chat; a model may bring several by name."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
