"""The tokenizer that a GGUF file describes, with every id where the file has it.

transformers' reader builds one too, but splits text by GPT-2's rule where it does not know the file's, spells control
tokens outside of the byte alphabet anew, adds tokens that the file has not, and prefixes a space that the file forbids.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from storage.errors import ModelUnsupported
from workers.model.gguf.header import GgufHeader
from workers.model.gguf.split_patterns import RULE_BY_NAME, SplitRule
from workers.model.gguf.supported import BYTE_LEVEL, SENTENCE_PIECE
from workers.model.tokenizer_files.token_lists import TokenKind, add_tokens, derived_merges, sentence_piece_bpe

_TOKENS = "tokenizer.ggml.tokens"
_MERGES = "tokenizer.ggml.merges"
STRING_ARRAYS = frozenset({_TOKENS, _MERGES})
_SPECIAL_IDS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
_END_IDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_SPACE = "▁"
# Phi-3 drops the spaces behind its control tokens, but for these.
_PHI3_PLAIN = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def tokenizer_of(header: GgufHeader, path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer, chat template included.

    header: read with `STRING_ARRAYS`, and found to be supported

    Raises ModelUnsupported for tokens that cannot all have their ids.
    """
    kind = header.text("tokenizer.ggml.model")
    tokens = [str(token) for token in header.listed(_TOKENS)]
    if not tokens:
        raise ModelUnsupported(f"{path} holds no tokenizer")
    kinds = _kinds_of(header, len(tokens))
    special = {
        name: tokens[token_id]
        for name, key in _SPECIAL_IDS.items()
        if (token_id := header.whole_number(key)) is not None and token_id < len(tokens)
    }
    if kind == BYTE_LEVEL:
        rule = RULE_BY_NAME[header.text("tokenizer.ggml.pre") or ""]
        backend, adds_bos = _byte_level(tokens, _merges_of(header), rule), rule.adds_bos
    else:
        backend, adds_bos = _sentence_piece(header, tokens, kinds, special.get("unk_token")), True
    add_tokens(backend, tokens, kinds, _right_stripped(header, tokens) if kind == SENTENCE_PIECE else frozenset())
    _check_ids(backend, tokens, kinds, path)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers left it bare
        tokenizer_object=backend,
        chat_template=header.text("tokenizer.chat_template"),
        add_bos_token=_flag(header, "tokenizer.ggml.add_bos_token", adds_bos) and "bos_token" in special,
        add_eos_token=_flag(header, "tokenizer.ggml.add_eos_token", False) and "eos_token" in special,
        clean_up_tokenization_spaces=False,
        **special,
    )


def end_ids_of(header: GgufHeader) -> list[int]:
    """Ids that end an answer, as far as the metadata name them."""
    named = {header.whole_number(key) for key in _END_IDS}
    return sorted(token_id for token_id in named if token_id is not None)


def _kinds_of(header: GgufHeader, num_tokens: int) -> list[int]:
    """The type of each token. Those that the metadata name for a purpose are control tokens, whatever the file says."""
    listed = header.listed("tokenizer.ggml.token_type")
    kinds = [kind for kind in listed if isinstance(kind, int)] or [TokenKind.NORMAL.value] * num_tokens
    for key in ("tokenizer.ggml.bos_token_id", *_END_IDS):
        token_id = header.whole_number(key)
        if token_id is not None and token_id < len(kinds):
            kinds[token_id] = TokenKind.CONTROL
    return kinds


def _byte_level(tokens: Sequence[str], merges: list[tuple[str, str]], rule: SplitRule) -> Tokenizer:
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.keeps_whole_words))
    if rule.is_normalized:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = rule.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentence_piece(header: GgufHeader, tokens: list[str], kinds: list[int], unknown: str | None) -> Tokenizer:
    """SentencePiece's BPE by the rules of transformers' own classes."""
    is_gemma = header.architecture.startswith("gemma")
    if is_gemma:
        # The file spells runs of spaces as such, the tokenizer as runs of its own sign.
        tokens = [_SPACE * len(token) if " " in token and not token.strip() else token for token in tokens]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    merges = _merges_of(header) or derived_merges(tokens, kinds, _ranks(header, tokens, is_gemma), vocabulary)
    # Their rules only: they would add special tokens that the file has not.
    built = (
        GemmaTokenizer()
        if is_gemma
        else LlamaTokenizer(add_prefix_space=_flag(header, "tokenizer.ggml.add_space_prefix", True))
    ).backend_tokenizer
    backend = sentence_piece_bpe(vocabulary, merges, unknown)
    backend.decoder = built.decoder
    if header.architecture == "phi3":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
        return backend
    if built.normalizer is not None:
        backend.normalizer = built.normalizer
    if built.pre_tokenizer is not None:
        backend.pre_tokenizer = built.pre_tokenizer
    return backend


def _ranks(header: GgufHeader, tokens: list[str], is_gemma: bool) -> list[float]:
    """What merges are sorted by, the highest first: the scores, but Gemma merges in the order of its tokens."""
    scores = [float(score) for score in header.listed("tokenizer.ggml.scores") if isinstance(score, int | float)]
    return [-float(token_id) for token_id in range(len(tokens))] if is_gemma or not scores else scores


def _merges_of(header: GgufHeader) -> list[tuple[str, str]]:
    merges = []
    for merge in header.listed(_MERGES):
        left, _, right = str(merge).partition(" ")
        merges.append((left, right))
    return merges


def _right_stripped(header: GgufHeader, tokens: list[str]) -> frozenset[str]:
    return frozenset(tokens) - _PHI3_PLAIN if header.architecture == "phi3" else frozenset()


def _check_ids(backend: Tokenizer, tokens: list[str], kinds: list[int], path: Path) -> None:
    for token_id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == TokenKind.CONTROL and backend.token_to_id(token) != token_id:
            raise ModelUnsupported(f"{path} names the control token {token!r} twice, ids would be ambiguous")
    if backend.get_vocab_size(with_added_tokens=True) > len(tokens):
        raise ModelUnsupported(f"{path} has a tokenizer with more tokens than it lists")


def _flag(header: GgufHeader, key: str, default: bool) -> bool:
    value = header.metadata.get(key)
    return value if isinstance(value, bool) else default
