"""Models of Hugging Face: fetched from a server on this machine into the cache, listed and removed."""

from pathlib import Path

import pytest

from api.cli.models import hugging_face
from api.cli.models.hugging_face import HuggingFaceUnavailable
from tests.cli.hugging_face_server import serving_hugging_face

GGUF = b"GGUF" + bytes(range(256)) * 4096
README = b"---\nlanguage: en\nlicense: apache-2.0\ntags:\n- test\n---\n# Tiny\n"
FILES = {
    "README.md": README,
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights",
    "original/consolidated.safetensors": b"the same weights",
    "tiny-Q8_0.gguf": GGUF,
}
REPOSITORY = "org/tiny"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of downloads, empty; progress bars are off."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    return tmp_path / "hub"


def test_of_a_repository_the_files_that_transformers_reads_are_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)

        source = hugging_face.pull(REPOSITORY)

    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert names == {"README.md", "config.json", "tokenizer.json", "model.safetensors"}
    assert hugging_face.find_source(REPOSITORY) == source
    [cached] = hugging_face.list_cached()
    assert (cached.name, cached.source, cached.licence) == (REPOSITORY, source, "apache-2.0")
    assert cached.size_bytes >= len(README)


def test_a_gguf_file_is_fetched_alone_and_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{REPOSITORY}:tiny-Q8_0.gguf"
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)

        source = hugging_face.pull(name)
        again = hugging_face.pull(name)

        assert len(server.downloads_of("tiny-Q8_0.gguf")) == 1
    assert source == again == hugging_face.find_source(name)
    assert source.read_bytes() == GGUF
    [cached] = hugging_face.list_cached()
    assert (cached.name, cached.size_bytes, cached.licence) == (name, len(GGUF), "apache-2.0")
    assert hugging_face.remove(name) > len(GGUF)
    assert list(cache.glob("models--*")) == []


def test_a_broken_connection_is_taken_up_where_it_broke(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It notes how far it is at each chunk, by default of 10 MB.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.breaks.add("tiny-Q8_0.gguf")

        source = hugging_face.pull(f"{REPOSITORY}:tiny-Q8_0.gguf")

        first, second = server.downloads_of("tiny-Q8_0.gguf")
    assert first is None
    assert second is not None
    assert second.startswith("bytes=")
    assert source.read_bytes() == GGUF


@pytest.mark.parametrize(
    ("name", "error_code", "reason"),
    [
        ("org/other", None, "Hugging Face has no model org/other: check the name, or set HF_TOKEN if it is private"),
        (REPOSITORY, "GatedRepo", "org/tiny is gated: accept its terms on its page, and set HF_TOKEN"),
        (f"{REPOSITORY}:x.gguf", None, "org/tiny holds no file x.gguf"),
    ],
)
def test_a_download_that_is_refused_says_why(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, error_code: str | None, reason: str
) -> None:
    with serving_hugging_face(REPOSITORY, FILES, error_code) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)

        with pytest.raises(HuggingFaceUnavailable) as refused:
            hugging_face.pull(name)

    assert refused.value.message == reason


@pytest.mark.parametrize("name", [REPOSITORY, f"{REPOSITORY}:x.gguf"])
def test_without_a_network_it_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(HuggingFaceUnavailable) as refused:
        hugging_face.pull(name)

    expected = "org/tiny could not be fetched: Hugging Face cannot be reached, and the model is not in its cache"
    assert refused.value.message == expected


def test_a_removed_file_leaves_the_others(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        hugging_face.pull(REPOSITORY)
        file = hugging_face.pull(f"{REPOSITORY}:tiny-Q8_0.gguf")

    freed_bytes = hugging_face.remove(f"{REPOSITORY}:tiny-Q8_0.gguf")

    assert freed_bytes == len(GGUF)
    assert not file.exists()
    assert [model.name for model in hugging_face.list_cached()] == [REPOSITORY]
    assert not [blob for blob in cache.rglob("blobs/*") if blob.stat().st_size == len(GGUF)]
    assert hugging_face.remove(REPOSITORY) > 0
    assert hugging_face.list_cached() == []


def test_an_empty_cache_holds_nothing(cache: Path) -> None:
    assert hugging_face.list_cached() == []
    assert hugging_face.find_source(REPOSITORY) is None
