"""Tokenizing prompts with the tokenizer of a model manifest: no model files, no torch.

Building a `PromptTools` parses the tokenizer (milliseconds to a second), so keep one for each manifest digest. Its
methods are safe to call from several threads.
"""

import copy
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from api.protocol.prompt.chat_template import ChatTemplate
from storage.contract import ModelManifest
from storage.errors import InvalidRequest

# Texts longer than this many characters for each token of context are tokenized in part first.
_CHARACTERS_PER_TOKEN = 16


class PromptTools:
    """A model's tokenizer, chat template and context length."""

    def __init__(self, manifest: ModelManifest) -> None:
        self.model = manifest.model
        self.context_length = manifest.context_length
        self._tokenizer: Tokenizer = Tokenizer.from_str(manifest.tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        num_known: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        # Embeddings are padded beyond the tokenizer's ids, or have fewer rows than it has ids.
        self.vocab_size = num_known if manifest.num_token_ids is None else manifest.num_token_ids
        self._may_exceed = num_known > self.vocab_size
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._template = (
            None if manifest.chat_template is None else ChatTemplate(manifest.chat_template, manifest.special_tokens)
        )
        self._bos = self._bos_of(manifest.special_tokens)

    def limited_to(self, context_length: int) -> "PromptTools":
        """The same tools for another context length; they share the tokenizer."""
        limited = copy.copy(self)
        limited.context_length = context_length
        return limited

    def _bos_of(self, special_tokens: Mapping[str, str]) -> tuple[int, ...]:
        found = self._tokenizer.token_to_id(special_tokens.get("bos_token", ""))
        return () if found is None else (found,)

    def encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        """Token ids of `text`. Of a text far beyond the context, possibly only the first ids.

        raises: InvalidRequest for a token that the tokenizer knows and the model does not
        """
        start = text[: self.context_length * _CHARACTERS_PER_TOKEN]
        ids = self._tokenizer.encode(start, add_special_tokens=add_special_tokens).ids
        # Cutting a text changes only tokens near the cut. 64 tokens are a wide margin for that.
        if len(start) < len(text) and len(ids) <= self.context_length + 64:
            ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        if self._may_exceed and max(ids, default=0) >= self.vocab_size:
            raise InvalidRequest(
                f"The input holds a token of the tokenizer that the model '{self.model}' does not have: "
                f"token ids must be below {self.vocab_size}."
            )
        return tuple(ids)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of a text prompt with the tokenizer's own special tokens. An empty text gives BOS, or nothing."""
        return self.encode(text, add_special_tokens=True) or self._bos

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, special tokens included."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def names_of(self, token_ids: Sequence[int]) -> list[tuple[int, str]]:
        """(position, text) of the prompt tokens whose text a job's log lacks: the first one and special tokens."""
        return [
            (position, self.decode([token_id]))
            for position, token_id in enumerate(token_ids)
            if position == 0 or token_id in self._special_ids
        ]

    def render_chat(self, messages: Sequence[Mapping[str, str]], *, field: str = "messages") -> str:
        """Prompt text of a chat, up to the beginning of the answer.

        messages: dicts of `role` and `content`; `developer` becomes `system` where the template does not know it
        raises:   InvalidRequest with `field` as param when the model has no template or the template refuses them
        """
        if self._template is None:
            raise InvalidRequest(f"The model '{self.model}' has no chat template; use /v1/completions.", param=field)
        if not self._template.knows_developer:
            # Templates ignore or refuse a role that they do not know, and the instructions would be lost.
            messages = [_as_system(message) for message in messages]
        return self._template.render(messages, field=field)

    def encode_chat(self, messages: Sequence[Mapping[str, str]], *, field: str = "messages") -> tuple[int, ...]:
        """Token ids of a chat's prompt. The template writes the special tokens, so none are added."""
        return self.encode(self.render_chat(messages, field=field), add_special_tokens=False)

    def count(self, messages: Sequence[Mapping[str, str]], *, field: str = "input") -> int:
        """Number of tokens of a chat's prompt."""
        return len(self._tokenizer.encode(self.render_chat(messages, field=field), add_special_tokens=False).ids)


def _as_system(message: Mapping[str, str]) -> Mapping[str, str]:
    return {**message, "role": "system"} if message["role"] == "developer" else message
