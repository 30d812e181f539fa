"""Tokenizing prompts with the tokenizer of a model manifest: no model files, no torch.

Building a `PromptTools` parses the tokenizer (milliseconds to a second), so keep one for each manifest digest. Its
methods are safe to call from several threads.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from tokenizers import Tokenizer

from api.protocol.families.detection import family_for
from api.protocol.prompt.chat_template import ChatTemplate
from api.protocol.prompt.control_tokens import ControlTokens
from api.protocol.prompt.encode_ids import encode_ids
from api.protocol.prompt.model_abilities import thinking_of
from api.protocol.prompt.prompt_strings import strings_of, with_strings
from api.protocol.prompt.system_turn import Message, with_one_beginning, with_one_system_turn
from api.protocol.prompt.thinking_form import NO_THINKING
from api.protocol.prompt.thought_turns import THOUGHT, with_named_thoughts
from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN, context_exceeded
from api.protocol.prompt.tool_declaration import NO_TOOLS, ToolDeclaration, declared_text, with_declaration
from api.protocol.prompt.tool_turns import arranged_turns, generic_turns, has_tool_turns
from storage.errors import InvalidRequest, ModelCapabilityMissing
from storage.model_manifest import ModelManifest

# Prompts up to this length are always counted exactly; that takes about a second.
_MAX_COUNTED_CHARACTERS = 1_000_000
# Those that may belong to the opening marker of a thought, whichever way it is written.
_NUM_LAST_TOKENS = 32
# The capability of models that generate text; manifests of older workers name no other.
COMPLETION = "completion"
_SAYING = {COMPLETION: "generates no text", "embedding": "makes no embeddings", "rerank": "rates no texts"}


class PromptTools:
    """A model's tokenizer, chat template and context length."""

    def __init__(self, manifest: ModelManifest, *, allows_special_tokens: bool = False) -> None:
        """allows_special_tokens: whether strings of callers may make control tokens, and so speak as the system"""
        self.model = manifest.model
        self.context_length = manifest.context_length
        self.generation_defaults = manifest.generation_defaults
        self.embedding = manifest.embedding
        self._capabilities = manifest.capabilities
        self.tokenizer = self._tokenizer = Tokenizer.from_str(manifest.tokenizer_json)
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
        template = None if self._template is None else self._template.source
        self._control = None if allows_special_tokens else ControlTokens(self._tokenizer, template)
        ids = {token.content: token_id for token_id, token in added.items()}
        self.family = family_for(template, manifest.response_template, ids.get)
        self.thinking = thinking_of(self.family.family, self._template)
        # Arguments of the chat template besides messages and tools.
        self._arguments = NO_THINKING

    def require(self, capability: str) -> None:
        """Raise ModelCapabilityMissing for a model that cannot do this."""
        if not self._capabilities.get(capability, capability == COMPLETION):
            raise ModelCapabilityMissing(f"The model '{self.model}' {_SAYING[capability]}.", param="model")

    def limited_to(self, context_length: int) -> "PromptTools":
        """The same tools for another context length; they share the tokenizer."""
        limited = copy.copy(self)
        limited.context_length = context_length
        return limited

    def with_arguments(self, arguments: Mapping[str, object]) -> "PromptTools":
        """The same tools with other arguments of the chat template, those that switch thinking."""
        # Nearly every request has the usual ones, and needs no copy.
        if arguments == self._arguments:
            return self
        switched = copy.copy(self)
        switched._arguments = arguments
        return switched

    def end_of(self, prompt: Sequence[int]) -> str:
        """The text of a prompt's last tokens, as far as it may open a thought."""
        return self.decode(prompt[-_NUM_LAST_TOKENS:])

    def _bos_of(self, special_tokens: Mapping[str, str]) -> tuple[int, ...]:
        found = self._tokenizer.token_to_id(special_tokens.get("bos_token", ""))
        return () if found is None else (found,)

    def encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        """Token ids of `text`. Of a text far beyond the context, possibly only the first ids.

        raises: InvalidRequest for a token that the tokenizer knows and the model does not
        """
        return self._encode_bounded(
            text, lambda some: encode_ids(self._tokenizer, some, add_special_tokens=add_special_tokens)
        )

    def _encode_bounded(
        self, text: str, encode: Callable[[str], list[int]], *, min_characters: int = 0
    ) -> tuple[int, ...]:
        # A longer text is tokenized in part first.
        start = text[: max(min_characters, self.context_length * CHARACTERS_PER_TOKEN)]
        ids = encode(start)
        # Cutting a text changes only tokens near the cut. 64 tokens are a wide margin for that.
        if len(start) < len(text) and len(ids) <= self.context_length + 64:
            ids = encode(text)
        if self._may_exceed and max(ids, default=0) >= self.vocab_size:
            raise InvalidRequest(
                f"The input holds a token of the tokenizer that the model '{self.model}' does not have: "
                f"token ids must be below {self.vocab_size}."
            )
        return tuple(ids)

    def encode_prompt(
        self, text: str, *, add_special_tokens: bool = True, allow_special_tokens: bool = False
    ) -> tuple[int, ...]:
        """Token ids of a text prompt, possibly only the first ones as in `encode`.

        add_special_tokens:   whether the tokenizer adds its own special tokens, such as BOS; an empty text is BOS alone
        allow_special_tokens: whether the text may make control tokens, as a rendered template does; BOS at its
                              beginning is then not doubled
        """
        control = None if allow_special_tokens else self._control
        if control is None or not (control.is_always_possible or control.marker.is_in(text)):
            ids = self.encode(text, add_special_tokens=add_special_tokens)
        else:
            (marked,), marks = control.marker.marked([text], beside="")
            ids = self._encode_bounded(
                marked, lambda some: control.encode(some, marks, add_special_tokens=add_special_tokens)
            )
        if self._bos and control is None and ids[:2] == self._bos * 2:
            return ids[1:]
        return ids or (self._bos if add_special_tokens else ())

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

    def render_chat(
        self, messages: Sequence[Message], *, tools: ToolDeclaration = NO_TOOLS, field: str = "messages"
    ) -> str:
        """Prompt text of a chat, up to the beginning of the answer.

        System and developer messages are arranged as the template accepts them: `developer` becomes `system` where it
        does not know that role, and several become one where it accepts only one. So are tools, calls and results.

        messages: dicts of `role` and `content`, see `system_turn.Message`
        raises:   InvalidRequest with `field` as param when the model has no template or the template refuses them
        """
        return self._render(*self._arranged(messages, tools, field), field)

    def _arranged(
        self, messages: Sequence[Message], tools: ToolDeclaration, field: str
    ) -> tuple[Sequence[Message], Sequence[Mapping[str, object]]]:
        """The messages and the tools as the template takes them, but for instructions."""
        template = self._get_template(field)
        if not tools.functions and not has_tool_turns(messages):
            return messages, ()
        form = template.tool_form
        is_generic = tools.is_generic or not form.shows_calls
        is_listed = form.declares_tools and not is_generic
        turns = generic_turns(messages) if is_generic else arranged_turns(messages, form)
        text = declared_text(tools, is_listed=is_listed, is_generic=is_generic)
        if text:
            turns = list(with_declaration(turns, text, takes_system=template.takes_system))
        return turns, tools.described(is_needed=form.needs_descriptions) if is_listed else ()

    def _get_template(self, field: str) -> ChatTemplate:
        if self._template is None:
            raise InvalidRequest(f"The model '{self.model}' has no chat template; use /v1/completions.", param=field)
        return self._template

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]], field: str) -> str:
        template = self._get_template(field)
        if not template.knows_developer:
            # Templates ignore or refuse a role that they do not know, and the instructions would be lost.
            messages = [_as_system(message) for message in messages]
        if not template.takes_late_systems:
            messages = with_one_system_turn(messages)
        elif not template.takes_two_systems:
            messages = with_one_beginning(messages)
        if any(THOUGHT in message for message in messages):
            messages = with_named_thoughts(messages, template.thought_name)
        return template.render(messages, tools=tools, arguments=self._arguments, field=field)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: ToolDeclaration = NO_TOOLS,
        field: str = "messages",
        min_characters: int = 0,
    ) -> tuple[int, ...]:
        """Token ids of a chat's prompt, possibly only the first ones as in `encode`.

        The template writes the special tokens, so none are added; strings of the messages and tools never make one.

        min_characters: of the prompt, which are encoded in any case
        """
        prompt, encode = self._chat_encoder(*self._arranged(messages, tools, field), field)
        return self._encode_bounded(prompt, encode, min_characters=min_characters)

    def _chat_encoder(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]], field: str
    ) -> tuple[str, Callable[[str], list[int]]]:
        """The rendered prompt and the function that encodes it.

        messages, tools: as `_arranged` gives them
        """
        control = self._control
        if control is None:
            return self._render(messages, tools, field), self._encode_plain
        texts = list(dict.fromkeys(strings_of([messages, tools])))
        marker = control.marker
        if not control.is_always_possible and not any(marker.is_in(text) or marker.may_join(text) for text in texts):
            return self._render(messages, tools, field), self._encode_plain
        marked, marks = marker.marked(texts, beside=self._get_template(field).source)
        names = dict(zip(texts, marked, strict=True))
        both = cast(tuple[Sequence[Message], Sequence[Message]], with_strings([messages, tools], names))
        prompt = self._render(*both, field)
        plain = None if control.is_always_possible else self._render_unless_refused(messages, tools)
        # The template's own control tokens and no others: strings of callers had no share in them.
        if plain is not None and marker.unmarked(plain, marks) == marker.unmarked(prompt, marks):
            return plain, self._encode_plain
        return prompt, lambda some: control.encode(some, marks, add_special_tokens=False)

    def _render_unless_refused(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]]) -> str | None:
        """The prompt text; None where the template refuses messages with the text of a control token, as GPT-OSS's."""
        try:
            return self._render(messages, tools, "messages")
        except InvalidRequest:
            return None

    def _encode_plain(self, text: str) -> list[int]:
        return encode_ids(self._tokenizer, text, add_special_tokens=False)

    def count(self, messages: Sequence[Message], *, tools: ToolDeclaration = NO_TOOLS, field: str = "input") -> int:
        """Number of tokens of a chat's prompt, also above the context length.

        Raises ContextLengthExceeded for a text far beyond the context, which would take long to tokenize to its end.
        """
        bound = max(_MAX_COUNTED_CHARACTERS, self.context_length * CHARACTERS_PER_TOKEN)
        num_tokens = len(self.encode_chat(messages, tools=tools, field=field, min_characters=bound))
        is_cut = sum(map(len, strings_of([messages, tools.functions]))) > bound
        if is_cut and num_tokens > self.context_length:
            raise context_exceeded(num_tokens, None, self.context_length, field=field)
        return num_tokens


def _as_system(message: Message) -> Message:
    return {**message, "role": "system"} if message["role"] == "developer" else message
