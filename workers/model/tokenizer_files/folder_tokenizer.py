"""The tokenizer of a model folder without a `tokenizer.json`: from its SentencePiece or Tekken file.

Folders of Mistral often hold nothing else, and no chat template. Templates then come from `mistral_templates`, one for
each version of Mistral's prompts: those that `mistral_common.integrations.chat_templates` 1.13.1 (Apache-2.0) writes
for Tekken without images and thinking, with two changes, so that prompts have the same ids as there: spaces at the end
of an answer are left out from version 2 on, and version 1 has a space before an answer.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from storage.errors import ModelUnsupported
from workers.model.tokenizer_files.sentence_piece import SentencePieceModel, read_sentence_piece
from workers.model.tokenizer_files.tekken import read_tekken

_TEMPLATES = Path(__file__).with_name("mistral_templates")
# Mistral appends the version of its prompts, and `m1` for images.
_SENTENCE_PIECE = re.compile(r"(?:tokenizer\.model|.+\.model\.v(?P<version>\d+)(?:m\d+)?)", re.ASCII)
# Control tokens that tell the version of a file without one, the newest first.
_MARKS = {"[SYSTEM_PROMPT]": "v7", "[TOOL_RESULTS]": "v3"}


def tokenizer_of_folder(folder: Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer; None where the folder has a `tokenizer.json`, or no file that is known here.

    Raises ModelUnsupported.
    """
    if (folder / "tokenizer.json").is_file():
        return None
    config = _read_json(folder / "tokenizer_config.json")
    for path in sorted(folder.glob("tekken*.json")):
        tekken = read_tekken(path)
        template = _own_template(folder, config) or _template_of(tekken.version)
        return _made(folder, path, config, tekken.backend(), tekken.special_tokens(), template)
    files = [(match, path) for path in folder.iterdir() if (match := _SENTENCE_PIECE.fullmatch(path.name))]
    if not files:
        return None
    match, path = max(files, key=lambda one: (int(one[0]["version"] or 0), one[1].name))
    model = read_sentence_piece(path)
    version = f"v{match['version']}" if match["version"] else _version_of(model)
    own = _own_template(folder, config)
    backend = model.backend(is_for_own_template=own is not None)
    return _made(folder, path, config, backend, model.special_tokens(), own or _template_of(version))


def _version_of(model: SentencePieceModel) -> str:
    return next((version for mark, version in _MARKS.items() if mark in model.tokens), "unknown")


def _made(
    folder: Path,
    path: Path,
    config: Mapping[str, object],
    backend: Tokenizer,
    special_tokens: Mapping[str, str],
    template: object,
) -> PreTrainedTokenizerFast:
    """The tokenizer with what the folder's other files say of it."""
    for token_id, token in _added_tokens(folder, config).items():
        if backend.token_to_id(token) != token_id:
            raise ModelUnsupported(
                f"{path} lacks the token {token!r}, which the model adds to it: save the tokenizer as tokenizer.json "
                "(`AutoTokenizer.from_pretrained(...).save_pretrained(...)` of transformers)"
            )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers left it bare
        tokenizer_object=backend,
        chat_template=template,
        add_bos_token=config.get("add_bos_token") is not False,
        add_eos_token=config.get("add_eos_token") is True,
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )


def _added_tokens(folder: Path, config: Mapping[str, object]) -> dict[int, str]:
    """Tokens that the folder names beside those of the file, by id."""
    found = {int(token_id): token for token, token_id in _read_json(folder / "added_tokens.json").items()}  # type: ignore[call-overload]
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        found |= {int(token_id): token["content"] for token_id, token in decoder.items()}
    return found


def _own_template(folder: Path, config: Mapping[str, object]) -> object:
    """The folder's own chat template; None without one."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for own in (config, _read_json(folder / "chat_template.json")):
        if own.get("chat_template") is not None:
            return own["chat_template"]
    return None


def _template_of(version: str) -> str | None:
    """The chat template of a version of Mistral's prompts; None for one that is not known here."""
    known = _TEMPLATES / f"{version}.jinja"
    return known.read_text(encoding="utf-8") if known.is_file() else None


def _read_json(path: Path) -> dict[str, object]:
    """An object in a file; empty without the file."""
    if not path.is_file():
        return {}
    value: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return value
