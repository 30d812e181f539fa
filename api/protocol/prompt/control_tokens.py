"""Control tokens: encoding prompts so that strings of callers never make one.

Control tokens are the special tokens and all added tokens that the chat template writes by itself. A caller who writes
`<|im_end|>` in a message must not end its own turn: such a text is encoded as ordinary characters.

Nearly no prompt contains the text of a control token, and those are encoded as they are. Where one does, an invisible
mark is put into it, the template is rendered, and the prompt is encoded by a second tokenizer in which the control
tokens have secret names. The template's own control tokens are then renamed, and the marks are removed.
"""

import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, cast

from tokenizers import Tokenizer

from api.protocol.prompt.encode_ids import encode_ids

# Private characters, of which one that the prompt does not contain becomes the mark.
_MARKS = range(0xF0000, 0xFFFFE)
# Normalizers that may turn other characters into the text of a token.
_FOLDING = re.compile(r'"type": ?"(NF\w+|Nmt|Precompiled|Lowercase|StripAccents|BertNormalizer)"')


class ControlTokens:
    """The control tokens of one tokenizer; safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        """template: source of the chat template, None for a model without one"""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        control = [token for token in added if token.special or (template is not None and token.content in template)]
        self._texts = sorted({token.content for token in control if token.content})
        self._pattern = re.compile(_any_of(self._texts) if self._texts else r"(?!)")
        folds = tokenizer.normalizer is not None and _FOLDING.search(_json_of(tokenizer.normalizer)) is not None
        self._is_always_possible = folds and any(token.normalized for token in control)
        self._lock = threading.Lock()
        self._renamed: tuple[Tokenizer, Mapping[str, str]] | None = None
        self._has_tried = False

    def is_in(self, texts: Iterable[str]) -> bool:
        """Whether a text may make a control token."""
        return self._is_always_possible or any(self._pattern.search(text) is not None for text in texts)

    def marked(self, texts: Sequence[str], beside: str = "") -> tuple[list[str], str]:
        """The texts with a mark inside each control token's text, and the mark.

        beside: other text of the prompt, which does not contain the mark either
        """
        everything = beside + "".join(texts)
        mark = next(chr(code) for code in _MARKS if chr(code) not in everything)
        return [self._mark(text, mark) for text in texts], mark

    def _mark(self, text: str, mark: str) -> str:
        # A mark may leave another control token's text whole where two overlap.
        pattern = re.compile(f"(?:{self._pattern.pattern})(?!{mark})")
        marked = text
        while pattern.search(marked) is not None:
            marked = pattern.sub(lambda found: found[0][0] + mark + found[0][1:], marked)
        return marked

    def encode(self, prompt: str, mark: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt in which the callers' control tokens are marked; the others become control tokens."""
        renamed = self._get_renamed()
        if renamed is None:
            return self._encode_in_pieces(prompt, mark, add_special_tokens=add_special_tokens)
        tokenizer, names = renamed
        pattern = re.compile(f"(?:{self._pattern.pattern})(?!{mark})")
        text = pattern.sub(lambda found: names[found[0]], prompt).replace(mark, "")
        return encode_ids(tokenizer, text, add_special_tokens=add_special_tokens)

    def _encode_in_pieces(self, prompt: str, mark: str, *, add_special_tokens: bool) -> list[int]:
        """As `encode`, for tokenizers that cannot be renamed: cut at the marks, which may change nearby tokens."""
        first, *rest = prompt.split(mark)
        ids = encode_ids(self._tokenizer, first, add_special_tokens=add_special_tokens)
        for piece in rest:
            ids += encode_ids(self._tokenizer, piece, add_special_tokens=False)
        return ids

    def _get_renamed(self) -> tuple[Tokenizer, Mapping[str, str]] | None:
        # Built when it is first needed, which for most models is never: it takes as much memory as the tokenizer.
        with self._lock:
            if not self._has_tried:
                self._has_tried = True
                self._renamed = self._rename()
            return self._renamed

    def _rename(self) -> tuple[Tokenizer, Mapping[str, str]] | None:
        nonce = secrets.token_hex(8)
        names = {text: f"\U0010fff0{nonce}-{index}\U0010fff1" for index, text in enumerate(self._texts)}
        try:
            renamed = Tokenizer.from_str(_with_names(self._tokenizer.to_str(), names))
        except Exception:  # noqa: BLE001 - the library raises this class itself, where merges name a renamed token
            return None
        known = self._tokenizer.get_added_tokens_decoder().items()
        is_same = all(renamed.token_to_id(names.get(token.content, token.content)) == key for key, token in known)
        return (renamed, names) if is_same else None


def _any_of(texts: Sequence[str]) -> str:
    """A pattern of the longest of these texts. Common beginnings are matched once, since tokenizers have hundreds."""
    pairs = zip(min(texts), max(texts), strict=False)
    prefix = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    tails: dict[str, list[str]] = {}
    for text in texts:
        if len(text) > len(prefix):
            tails.setdefault(text[len(prefix)], []).append(text)
    if not tails:
        return re.escape(prefix)
    rest = "|".join(_any_of([text[len(prefix) :] for text in some]) for some in tails.values())
    return f"{re.escape(prefix)}(?:{rest}){'?' if prefix in texts else ''}"


def _json_of(normalizer: object) -> str:
    """The JSON of a tokenizer's normalizer."""
    return bytes(cast(Any, normalizer).__getstate__()).decode()  # Any: the library declares no type of its state


def _with_names(tokenizer_json: str, names: Mapping[str, str]) -> str:
    """The tokenizer with other texts of tokens, in its added tokens and in its vocabulary."""
    tokenizer = json.loads(tokenizer_json)
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = tokenizer["model"]
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(text, text): token_id for text, token_id in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[names.get(text, text), score] for text, score in vocab]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return json.dumps(tokenizer, ensure_ascii=False)
