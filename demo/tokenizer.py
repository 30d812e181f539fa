"""The demo model's tokenizer: one token per template word and digit, single bytes for everything else."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from demo.dialog import CALL, CALL_END, CHAT_TEMPLATE, MESSAGE_END, THINK, THINK_END

END_OF_TEXT, MESSAGE_START = "<|endoftext|>", "<|im_start|>"
SPECIAL_TOKENS = (END_OF_TEXT, MESSAGE_START, MESSAGE_END)
# Single tokens that are text nevertheless, as in Qwen3: a decoder shows them.
MARKERS = (THINK, THINK_END, CALL, CALL_END, "<tool_response>", "</tool_response>")
ASSISTANT = "assistant"
ROLES = ("system", "developer", "user", "assistant", "tool")
# A digit, the comma of a number row, an operator, a word, marks of JSON in a row, or one other character; words and
# operators take one leading space with them.
_PIECES = r"\d|, (?=\d)| ?[A-Za-z]+| ?[+=]|[\[\]{}\",:]+(?: [\[{\"]+)?|[^A-Za-z\d]"


def build(texts: Iterable[str], *, words: set[str], min_count: int) -> Tokenizer:
    """A byte-level tokenizer without merges; pieces seen `min_count` times become tokens.

    Of letters only the given words and the roles do. Any other word falls apart into characters, so copying and
    spelling it is the same for any word.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    frequent = [piece for piece, number in _count_pieces(texts).most_common() if number >= min_count and len(piece) > 1]
    known = words | set(ROLES)
    owned = [piece for piece in frequent if not piece[-1].isalpha() or piece.lstrip("Ġ").lower() in known]
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *MARKERS, *alphabet, *owned])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken(marker, normalized=False, special=False) for marker in MARKERS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, *, max_length: int) -> None:
    """Write the tokenizer, its config and the chat template as transformers reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "eos_token": MESSAGE_END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    pieces = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _count_pieces(texts: Iterable[str]) -> Counter[str]:
    splitter = _pre_tokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        for marker in (*SPECIAL_TOKENS, *MARKERS):
            text = text.replace(marker, "\n")
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    return counts
