"""Control tokens: encoding prompts so that strings of callers never make one.

Control tokens are the special tokens and all added tokens that the chat template writes by itself. A caller who writes
`<|im_end|>` in a message must not end its own turn: such a text is encoded as ordinary characters.

Nearly no prompt contains the text of a control token, and those are encoded as they are. Where one does, the string is
marked (`marks.py`), the template is rendered, and the prompt is encoded by a second tokenizer in which the control
tokens have secret names. The template's own control tokens are then renamed, and the marks are removed.
"""

import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

from tokenizers import Tokenizer

from api.protocol.prompt.encode_ids import encode_ids
from api.protocol.prompt.marks import Marker, Marks, sorted_texts

# How SentencePiece-like tokenizers write a space.
_SPACE = "\u2581"


class ControlTokens:
    """The control tokens of one tokenizer; safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        """template: source of the chat template, None for a model without one"""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        control = [token for token in added if token.special or _is_written(token.content, template or "")]
        self._texts = sorted_texts(token.content for token in control)
        self.marker = Marker(self._texts)
        normalized = [token.content for token in control if token.normalized]
        # Whether the normalizer may turn other characters into the text of a token, so that none is safe to look at.
        self.is_always_possible = bool(normalized) and _folds(tokenizer.normalizer, normalized)
        self._lock = threading.Lock()
        self._renamed: tuple[Tokenizer, Mapping[str, str]] | None = None
        self._has_tried = False

    def encode(self, prompt: str, marks: Marks, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt in which the callers' control tokens are marked; the others become control tokens."""
        renamed = self._get_renamed()
        if renamed is None:
            return self._encode_in_pieces(prompt, marks, add_special_tokens=add_special_tokens)
        tokenizer, names = renamed
        text = marks.removed(self.marker.pattern(marks).sub(lambda found: names[found[0]], prompt))
        return encode_ids(tokenizer, text, add_special_tokens=add_special_tokens)

    def _encode_in_pieces(self, prompt: str, marks: Marks, *, add_special_tokens: bool) -> list[int]:
        """As `encode`, for tokenizers that cannot be renamed: cut at the marks, which may change nearby tokens."""
        first, *rest = prompt.replace(marks.edge, marks.inside).split(marks.inside)
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
        except Exception:  # noqa: BLE001 - the library raises this class itself, where a tokenizer names a renamed token
            return None
        known = self._tokenizer.get_added_tokens_decoder().items()
        is_same = all(renamed.token_to_id(names.get(token.content, token.content)) == key for key, token in known)
        return (renamed, names) if is_same else None


def _is_written(text: str, template: str) -> bool:
    """Whether a template writes this token. White space in its source is layout, though Gemma has tokens for that."""
    return bool(text.strip()) and text in template


def _folds(normalizer: object, texts: Sequence[str]) -> bool:
    """Whether this normalizer of a tokenizer may make one of the texts out of other characters."""
    if normalizer is None:
        return False
    has_space = any(" " in text or _SPACE in text for text in texts)
    return any(_folds_one(step, has_space=has_space) for step in _steps(json.loads(_json_of(normalizer))))


def _steps(step: dict[str, Any]) -> list[dict[str, Any]]:  # Any: JSON of the library
    if step.get("type") != "Sequence":
        return [step]
    return [inner for one in step["normalizers"] for inner in _steps(one)]


def _folds_one(step: dict[str, Any], *, has_space: bool) -> bool:  # Any: JSON of the library
    if step["type"] == "Prepend":
        return False
    is_of_spaces = step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": " "}, _SPACE)
    return has_space if is_of_spaces else True


def _json_of(normalizer: object) -> str:
    """The JSON of a tokenizer's normalizer."""
    return bytes(cast(Any, normalizer).__getstate__()).decode()  # Any: the library declares no type of its state


def _with_names(tokenizer_json: str, names: Mapping[str, str]) -> str:
    """The tokenizer with other texts of tokens, in its added tokens and in its vocabulary."""
    tokenizer = json.loads(tokenizer_json)
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = tokenizer["model"]
    if "merges" in model:
        # Otherwise characters could be merged to a control token, and the vocabulary would lack names in merges.
        model["merges"] = [merge for merge in model["merges"] if not _is_of(merge, names)]
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(text, text): token_id for text, token_id in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[names.get(text, text), score] for text, score in vocab]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return json.dumps(tokenizer, ensure_ascii=False)


def _is_of(merge: str | list[str], names: Mapping[str, str]) -> bool:
    """Whether a merge, in either notation, makes or takes a token that has another name."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first in names or second in names or first + second in names
