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


def fetched(name: str) -> tuple[Path, list[tuple[int, int]]]:
    """The source, and what was reported, as `tokenpost models pull` fetches it."""
    reports: list[tuple[int, int]] = []
    hugging_face.pull_large_files(name, lambda done, total: reports.append((done, total)))
    return hugging_face.pull(name), reports


def test_a_broken_connection_is_taken_up_where_it_broke(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.breaks["tiny-Q8_0.gguf"] = 2

        source, reports = fetched(f"{REPOSITORY}:tiny-Q8_0.gguf")

        assert server.sent_bytes["tiny-Q8_0.gguf"] == len(GGUF)
    assert source.read_bytes() == GGUF
    assert reports == sorted(reports)
    assert reports[-1] == (len(GGUF), len(GGUF))


def test_the_next_command_goes_on_where_one_broke_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{REPOSITORY}:tiny-Q8_0.gguf"
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.breaks["tiny-Q8_0.gguf"] = 1
        with monkeypatch.context() as impatient:
            impatient.setattr("api.cli.models.resumed_download._MAX_VAIN_ATTEMPTS", 0)
            with pytest.raises(HuggingFaceUnavailable, match=r"broke off after .* the same command goes on from there"):
                fetched(name)
        assert hugging_face.find_source(name) is None

        source, _ = fetched(name)

        assert server.sent_bytes["tiny-Q8_0.gguf"] == len(GGUF)
        assert len(server.downloads_of("tiny-Q8_0.gguf")) == 2
    assert source.read_bytes() == GGUF
    assert list(cache.rglob("*.partial")) == []


def test_what_arrives_with_another_digest_is_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{REPOSITORY}:tiny-Q8_0.gguf"
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.damages.add("tiny-Q8_0.gguf")
        with pytest.raises(HuggingFaceUnavailable, match="another size or SHA-256"):
            fetched(name)
        server.damages.clear()

        source, _ = fetched(name)

    assert source.read_bytes() == GGUF


def test_a_server_without_ranges_sends_the_file_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_hugging_face(REPOSITORY, FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.knows_ranges = False
        server.breaks["tiny-Q8_0.gguf"] = 1

        source, _ = fetched(f"{REPOSITORY}:tiny-Q8_0.gguf")

    assert source.read_bytes() == GGUF


def test_a_repository_without_its_weights_is_not_there(cache: Path) -> None:
    snapshot = cache / "models--org--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert hugging_face.find_source(REPOSITORY) is None

    (snapshot / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors", "b": "2"}}')
    (snapshot / "model-1.safetensors").write_bytes(b"weights")
    assert hugging_face.find_source(REPOSITORY) is None

    (snapshot / "2").write_bytes(b"weights")
    assert hugging_face.find_source(REPOSITORY) == snapshot


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
