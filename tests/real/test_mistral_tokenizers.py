"""Mistral's own tokenizer files: ids and texts are those of mistral-common, as `record_mistral.py` wrote them down."""

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from api.protocol.prompt.tokenizing import PromptTools
from tests.real.packages import MISTRAL_COMMON, PackageUnavailable, fetched
from tests.services import skip_or_fail
from workers.model.manifest import manifest_of
from workers.model.tokenizer_files.folder_tokenizer import tokenizer_of_folder
from workers.text.stream import factory_of

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("mistral_ids.json").read_text())


@dataclass(frozen=True, slots=True, repr=False)
class Shipped:
    """A tokenizer file of the package, and what mistral-common makes with it."""

    tokenizer: PreTrainedTokenizerFast
    tools: PromptTools
    recorded: dict[str, Any]


@cache
def _shipped(name: str, folder: Path) -> Shipped:
    shutil.copyfile(fetched(MISTRAL_COMMON) / MISTRAL_COMMON.members[0] / name, folder / name)
    tokenizer = tokenizer_of_folder(folder)
    assert tokenizer is not None
    manifest = manifest_of(tokenizer, None, model="m", context_length=4096, num_token_ids=len(tokenizer))
    return Shipped(tokenizer, PromptTools(manifest), RECORDED[name])


@pytest.fixture(scope="module", params=RECORDED)
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """Each file in turn."""
    try:
        return _shipped(request.param, tmp_path_factory.mktemp("mistral"))
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise


def test_a_text_has_the_ids_of_mistral_common(shipped: Shipped) -> None:
    for text, ids in shipped.recorded["texts"]:
        assert list(shipped.tools.encode_prompt(text)) == ids, text


def test_a_chat_has_the_ids_of_mistral_common(shipped: Shipped) -> None:
    for chat, ids in shipped.recorded["chats"]:
        messages = [{"role": role, "content": text} for role, text in chat]
        assert list(shipped.tools.encode_chat(messages)) == ids, chat
        assert shipped.tools.count(messages) == len(ids)


def test_the_streamed_text_is_that_of_mistral_common(shipped: Shipped) -> None:
    texts = factory_of(shipped.tokenizer.backend_tokenizer)
    for (_, ids), decoded in zip(shipped.recorded["texts"], shipped.recorded["decoded"], strict=True):
        stream = texts.open((), prompt=[])
        assert "".join(map(stream.push, ids[1:])) + stream.close() == decoded
