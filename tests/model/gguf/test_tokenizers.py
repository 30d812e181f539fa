"""Tokenizers of GGUF files: SentencePiece, special tokens in any alphabet, and how text is split."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf.constants import TokenType
from tokenizers import Tokenizer

from tests.text import tokenizers
from workers.model.gguf.gguf_tokenizer import STRING_ARRAYS, tokenizer_of
from workers.model.gguf.header import read_header

TEXTS = ["the quick", "The  quick, the the.", " Do", "naïve 🙂\n", "", "x</s>y"]


def read(path: Path, write: Any) -> Any:  # a writer's and a tokenizer's methods, by name
    """The tokenizer of a file with the metadata that are written."""
    writer = gguf.GGUFWriter(path, "llama")
    write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tokenizer_of(read_header(path, STRING_ARRAYS), path)


def write_sentence_piece(writer: gguf.GGUFWriter) -> None:
    """Tokens, scores and types of the test's SentencePiece tokenizer; merges are implied by the scores."""
    content = json.loads(tokenizers.byte_fallback().to_str())
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    merged = ["".join(merge) for merge in content["model"]["merges"]]
    kinds = [TokenType.BYTE if token.startswith("<0x") else TokenType.NORMAL for token in tokens]
    kinds[0] = TokenType.UNKNOWN
    kinds[1:4] = [TokenType.CONTROL] * 3
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(merged.index(token)) if token in merged else -1000.0 for token in tokens])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def test_sentence_piece_has_the_merges_that_its_scores_imply(tmp_path: Path) -> None:
    made = tokenizers.byte_fallback()

    found = read(tmp_path / "model.gguf", write_sentence_piece)

    for text in ["the quick", "The the.", "naïve 🙂\n"]:
        assert found(text, add_special_tokens=False).input_ids == made.encode(text, add_special_tokens=False).ids
        assert found.decode(found(text, add_special_tokens=False).input_ids) == text
    assert found("the").input_ids[0] == 1


def test_no_space_is_prefixed_where_the_file_forbids_it(tmp_path: Path) -> None:
    def write(writer: gguf.GGUFWriter) -> None:
        write_sentence_piece(writer)
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(False)

    found = read(tmp_path / "model.gguf", write)

    assert found.convert_ids_to_tokens(found("the").input_ids) == ["t", "he"]
    assert found.decode(found(" the").input_ids) == " the"


def write_byte_level(writer: gguf.GGUFWriter, pre: str, special: list[str]) -> list[str]:
    """A byte-level tokenizer whose special tokens come last; its tokens."""
    content = json.loads(tokenizers.byte_level().to_str())
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get) + special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_token_types([TokenType.NORMAL] * (len(tokens) - len(special)) + [TokenType.CONTROL] * len(special))
    return tokens


def test_control_tokens_outside_of_the_byte_alphabet_keep_their_ids(tmp_path: Path) -> None:
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"]
    tokens: list[str] = []

    def write(writer: gguf.GGUFWriter) -> None:
        tokens.extend(write_byte_level(writer, "deepseek-r1-qwen", special))
        writer.add_bos_token_id(len(tokens) - 3)
        writer.add_eos_token_id(len(tokens) - 2)
        writer.add_add_bos_token(True)

    found = read(tmp_path / "model.gguf", write)

    first = len(tokens) - 3
    assert found(special[2] + "Hi").input_ids[:2] == [first, first + 2]
    assert (found.bos_token_id, found.eos_token_id, len(found)) == (first, first + 1, len(tokens))
    assert found.decode([first + 2], skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["Ġ1234", "ĠIt", "'s", "ĠHI"]),
        ("smollm", ["Ġ", "1", "2", "3", "4", "ĠIt", "'s", "ĠHI"]),
        ("llama-bpe", ["Ġ", "123", "4", "ĠIt", "'s", "ĠHI"]),
        ("qwen2", ["Ġ", "1", "2", "3", "4", "ĠIt", "'s", "ĠHI"]),
        ("tekken", ["Ġ", "1", "2", "3", "4", "ĠIt", "'s", "ĠHI"]),
        ("gpt-4o", ["Ġ", "123", "4", "ĠIt's", "ĠHI"]),
    ],
)
def test_text_is_split_as_the_file_names_it(pre: str, pieces: list[str], tmp_path: Path) -> None:
    found = read(tmp_path / "model.gguf", lambda writer: write_byte_level(writer, pre, []))

    backend: Tokenizer = found.backend_tokenizer
    assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(" 1234 It's HI")] == pieces  # type: ignore[union-attr]


def test_a_prompt_begins_with_the_first_token_where_llama_3_says_nothing_of_it(tmp_path: Path) -> None:
    def write(writer: gguf.GGUFWriter) -> None:
        write_byte_level(writer, "llama-bpe", [])
        writer.add_bos_token_id(1)

    found = read(tmp_path / "model.gguf", write)

    assert found("Hi").input_ids[0] == 1
