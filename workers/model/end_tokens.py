"""End tokens: which ids end an answer, from every source that names one."""

from transformers import GenerationConfig, PreTrainedTokenizerBase

from workers.model.files import ModelFiles

# Stands for an answer in a rendered chat; plain letters, so that no template changes it.
_ANSWER = "tokenpostanswer"


def end_token_ids(files: ModelFiles) -> frozenset[int]:
    """Ids that end a sequence: of the generation config, the model's config, the tokenizer and the chat template.

    They are united, because fine-tunes often change one source only: a ChatML fine-tune whose generation config still
    names the base model's end of text would never end an answer.
    """
    generation: GenerationConfig | None = files.model.generation_config
    sources = (
        None if generation is None else generation.eos_token_id,
        getattr(files.config.get_text_config(), "eos_token_id", None),
        getattr(files.config, "eos_token_id", None),
        files.tokenizer.eos_token_id,
        end_of_turn_id(files.tokenizer),
    )
    return frozenset(token_id for source in sources for token_id in _ids_of(source) if token_id >= 0)


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the control token that the chat template writes after an answer; None where it writes none."""
    if not tokenizer.chat_template:
        return None
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # noqa: BLE001 - a template is foreign code; one that raises names no end of turn
        return None
    before, answer, after = str(rendered).rpartition(_ANSWER)
    rest = after.lstrip() if before and answer else ""
    added = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()}
    found = [text for text in added if text and rest.startswith(text)]
    return added[max(found, key=len)] if found else None


def _ids_of(source: object) -> list[int]:
    """A single id or a list of them, as configurations have it."""
    listed = source if isinstance(source, list | tuple) else [source]
    return [token_id for token_id in listed if isinstance(token_id, int)]
