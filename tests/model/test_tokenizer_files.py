"""Tokenizers of folders without a `tokenizer.json`. What they make of texts is tested in `tests/real`."""

import base64
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import ModelUnsupported
from tests.model.conftest import LIMITS
from tests.model.tiny import make_tiny
from workers.model.load import load
from workers.model.tokenizer_files.folder_tokenizer import tokenizer_of_folder
from workers.model.tokenizer_files.sentence_piece import read_sentence_piece
from workers.model.tokenizer_files.tekken import read_tekken
from workers.model.tokenizer_files.token_lists import TokenKind

PIECES = [
    ("<unk>", TokenKind.UNKNOWN),
    ("<s>", TokenKind.CONTROL),
    ("</s>", TokenKind.CONTROL),
    *((f"<0x{value:02X}>", TokenKind.BYTE) for value in range(256)),
    *((text, TokenKind.NORMAL) for text in ("▁", "a", "b", "ab", "▁a")),
]
FIRST = len(PIECES) - 5


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a small number, or bytes."""
    if isinstance(value, int):
        return bytes([number << 3 & 0x7F | 0x80, number >> 4, value]) if number > 15 else bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value


def write_sentence_piece(path: Path, *, model_type: int = 2, removes_spaces: int = 0) -> Path:
    """A model of a few pieces."""
    pieces = [
        field(1, text.encode()) + b"\x15" + struct.pack("<f", -place) + field(3, int(kind))
        for place, (text, kind) in enumerate(PIECES)
    ]
    trainer = field(3, model_type) + field(35, 1)
    path.write_bytes(
        b"".join(field(1, piece) for piece in pieces) + field(2, trainer) + field(3, field(4, removes_spaces))
    )
    return path


def write_tekken(path: Path, **config: object) -> Path:
    """A tokenizer of all bytes and one more token."""
    vocabulary = [bytes([value]) for value in range(256)] + [b"ab"]
    known = {"pattern": r"\S+|\s+", "default_vocab_size": 287, "default_num_special_tokens": 30, "version": "v7"}
    tokens = [{"token_bytes": base64.b64encode(piece).decode()} for piece in vocabulary]
    path.write_text(json.dumps({"config": known | config, "vocab": tokens}))
    return path


def test_a_sentence_piece_model_splits_and_joins(tmp_path: Path) -> None:
    write_sentence_piece(tmp_path / "tokenizer.model")

    tokenizer = tokenizer_of_folder(tmp_path)

    assert tokenizer is not None
    assert tokenizer("ab a").input_ids == [1, FIRST, FIRST + 3, FIRST + 4]
    assert tokenizer.decode([FIRST + 4, FIRST + 2, 3 + 0xC3, 3 + 0xBC]) == "abü"
    assert tokenizer.chat_template is None


def test_a_folders_own_template_and_options_go_before(tmp_path: Path) -> None:
    write_tekken(tmp_path / "tekken.json")
    assert "[SYSTEM_PROMPT]" in str(getattr(tokenizer_of_folder(tmp_path), "chat_template", None))

    options = {"add_bos_token": False, "chat_template": "mine", "added_tokens_decoder": {"3": {"content": "[INST]"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    tokenizer = tokenizer_of_folder(tmp_path)

    assert tokenizer is not None
    assert tokenizer.chat_template == "mine"
    assert tokenizer("ab").input_ids == [30 + 256]


def test_a_token_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    write_tekken(tmp_path / "tekken.json")
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 287}')

    with pytest.raises(ModelUnsupported, match=r"lacks the token '<\|im_end\|>'"):
        tokenizer_of_folder(tmp_path)


def test_the_newest_file_of_several_is_read(tmp_path: Path) -> None:
    for name in ("tokenizer.model", "tokenizer.model.v3"):
        write_sentence_piece(tmp_path / name)
    (tmp_path / "tokenizer.model.v1").write_bytes(b"damaged")

    tokenizer = tokenizer_of_folder(tmp_path)

    assert tokenizer is not None
    assert "[TOOL_RESULTS]" in str(tokenizer.chat_template)


def test_a_tokenizer_json_goes_before(tmp_path: Path) -> None:
    write_tekken(tmp_path / "tekken.json")
    (tmp_path / "tokenizer.json").write_text("{}")

    assert tokenizer_of_folder(tmp_path) is None


@pytest.mark.parametrize("changes", [{"model_type": 1}, {"removes_spaces": 1}])
def test_other_rules_than_llamas_are_refused(changes: dict[str, int], tmp_path: Path) -> None:
    path = write_sentence_piece(tmp_path / "tokenizer.model", **changes)

    with pytest.raises(ModelUnsupported, match=r"other rules.*save it as tokenizer\.json"):
        read_sentence_piece(path)


@pytest.mark.parametrize(
    "changes", [{"default_vocab_size": 10**12}, {"default_num_special_tokens": 3}, {"pattern": "("}]
)
def test_numbers_of_a_tekken_file_that_do_not_fit_are_refused(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match="damaged"):
        read_tekken(write_tekken(tmp_path / "tekken.json", **changes))


@given(st.binary(max_size=40))
def test_a_damaged_file_is_refused_without_a_crash(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)

    for read in (read_sentence_piece, read_tekken):
        with pytest.raises(ModelUnsupported, match=r"damaged|other rules"):
            read(path)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.model.v3", "tekken.json"])
def test_a_damaged_tokenizer_stops_the_start_with_its_name(name: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(b"\x00damaged")

    with pytest.raises(ModelUnsupported, match=f"{name} is damaged"):
        load(str(folder), device="cpu", limits=LIMITS)
