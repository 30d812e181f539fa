"""A GGUF file that cannot be served is refused with one sentence, before anything is converted."""

from pathlib import Path

import gguf
import pytest

from storage.errors import ModelFilesMissing, ModelUnsupported
from tests.model.gguf.files import Change, make_gguf, write_gguf
from tests.model.tiny import make_tiny
from workers.model.gguf.header import read_header
from workers.model.gguf.supported import check_supported


def check(path: Path) -> None:
    """What happens before a conversion."""
    check_supported(path, read_header(path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is served."""
    return make_gguf(tmp_path_factory.mktemp("gguf"))


def test_a_whole_file_is_accepted(whole: Path) -> None:
    check(whole)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pointer.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ModelUnsupported, match="no GGUF file"):
        check(path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_refused_wherever_it_ends(share: float, whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    path = tmp_path / "part.gguf"
    path.write_bytes(content[: max(4, int(len(content) * share))])

    with pytest.raises(ModelFilesMissing, match=r"truncated.*: fetch it again"):
        check(path)


def test_damaged_lengths_are_refused_without_a_crash(whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    path = tmp_path / "damaged.gguf"
    for position in range(4, 400):
        damaged = content.copy()
        damaged[position] = 0xFF
        path.write_bytes(damaged)
        try:
            check(path)
        except (ModelFilesMissing, ModelUnsupported):
            continue


def _renamed(architecture: str) -> Change:
    return lambda writer: writer.add_string("general.architecture", architecture)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda writer: writer.add_uint16("split.count", 3), "model-00001-of-00003.gguf, model-00002-of-00003.gguf"),
        (lambda writer: writer.add_string("general.type", "mmproj"), "is a vision projector"),
        (lambda writer: writer.add_string("general.type", "adapter"), "is an adapter"),
        (lambda writer: writer.add_uint32("llama.expert_count", 8), "mixture of experts"),
        (lambda writer: writer.add_float32("llama.logit_scale", 0.1), "llama.logit_scale"),
    ],
)
def test_what_is_no_model_of_its_own_is_refused(change: Change, reason: str, tmp_path: Path) -> None:
    path = make_gguf(tmp_path, change=change)

    with pytest.raises(ModelUnsupported, match=reason):
        check(path)


def test_a_part_is_known_by_its_name_too(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "big-00002-of-00005.gguf"
    path.write_bytes(whole.read_bytes())

    with pytest.raises(ModelUnsupported, match=r"one of 5 parts: join big-00001-of-00005\.gguf"):
        check(path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "rwkv7")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    with pytest.raises(ModelUnsupported, match="architecture rwkv7, which is not converted"):
        check(path)


@pytest.mark.parametrize(
    ("pre", "reason"), [("mystery", "not known: mystery"), (None, "does not say"), ("default", "does not say")]
)
def test_an_unknown_pre_tokenizer_is_refused(pre: str | None, reason: str, tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "original", "llama"), tmp_path / "model.gguf", pre=pre)

    with pytest.raises(ModelUnsupported, match=reason):
        check(path)
