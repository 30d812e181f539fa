"""What `--model` means, judged before anything starts."""

from pathlib import Path

import pytest

from api.cli.models.model_argument import ModelArgument, ModelArgumentInvalid, bundled_model, parse_models


def test_a_hugging_face_id_is_its_own_name() -> None:
    assert parse_models(["Qwen/Qwen3-0.6B"]) == [ModelArgument(name="Qwen/Qwen3-0.6B", source="Qwen/Qwen3-0.6B")]


def test_a_name_may_stand_before_an_id() -> None:
    assert parse_models(["small=Qwen/Qwen3-0.6B"]) == [ModelArgument(name="small", source="Qwen/Qwen3-0.6B")]


def test_a_folder_is_named_after_itself_and_made_absolute(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_folder.parent)

    assert parse_models(["./tiny", "other=tiny"]) == [
        ModelArgument(name="tiny", source=str(model_folder)),
        ModelArgument(name="other", source=str(model_folder)),
    ]


def test_an_equals_sign_in_a_path_is_part_of_the_path(model_folder: Path) -> None:
    assert parse_models([str(model_folder)]) == [ModelArgument(name="tiny", source=str(model_folder))]


@pytest.mark.parametrize("argument", ["./nowhere", "/nowhere", "~/nowhere-at-all", "a/b/c", "name=../nowhere"])
def test_a_missing_folder_is_reported_at_once(argument: str) -> None:
    with pytest.raises(ModelArgumentInvalid, match="there is no model folder"):
        parse_models([argument])


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_without_a_model_in_it_is_reported_at_once(model_folder: Path, missing: str) -> None:
    (model_folder / missing).unlink()

    with pytest.raises(ModelArgumentInvalid, match="no model folder"):
        parse_models([str(model_folder)])


def test_a_pointer_in_place_of_weights_is_reported_at_once(model_folder: Path) -> None:
    (model_folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ModelArgumentInvalid, match="no whole safetensors file"):
        parse_models([str(model_folder)])


def test_two_models_of_one_name_are_refused(model_folder: Path) -> None:
    with pytest.raises(ModelArgumentInvalid, match="two models are named 'tiny'"):
        parse_models([str(model_folder), "tiny=Qwen/Qwen3-0.6B"])


def test_a_name_must_be_a_name() -> None:
    with pytest.raises(ModelArgumentInvalid, match="cannot name a model"):
        parse_models(["my model=Qwen/Qwen3-0.6B"])


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """A file that begins as GGUF does."""
    file = tmp_path / "Qwen3-0.6B-Q8_0.gguf"
    file.write_bytes(b"GGUF" + bytes(20))
    return file


def test_a_gguf_file_is_named_after_itself(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gguf_file.parent)

    assert parse_models([f"./{gguf_file.name}", f"q8={gguf_file.name}"]) == [
        ModelArgument(name="Qwen3-0.6B-Q8_0", source=str(gguf_file)),
        ModelArgument(name="q8", source=str(gguf_file)),
    ]


@pytest.mark.parametrize("argument", ["./nothing.gguf", "nothing.gguf", "name=~/nothing.gguf"])
def test_a_missing_gguf_file_is_reported_at_once(argument: str) -> None:
    with pytest.raises(ModelArgumentInvalid, match=r"there is no model file .*/nothing\.gguf$"):
        parse_models([argument])


def test_a_pointer_in_place_of_a_gguf_file_is_reported_at_once(gguf_file: Path) -> None:
    gguf_file.write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ModelArgumentInvalid, match="does not begin as a GGUF file"):
        parse_models([str(gguf_file)])


def test_another_file_is_no_model(model_folder: Path) -> None:
    with pytest.raises(ModelArgumentInvalid, match=r"is no GGUF file; a model is a \.gguf file, or a folder"):
        parse_models([str(model_folder / "model.safetensors")])


def test_of_a_folder_of_gguf_files_one_is_suggested(gguf_file: Path) -> None:
    with pytest.raises(ModelArgumentInvalid, match=f"name its GGUF file: --model {gguf_file}"):
        parse_models([str(gguf_file.parent)])


@pytest.mark.parametrize("source", ["Qwen/Qwen3-0.6B-GGUF:Qwen3-0.6B-Q8_0.gguf", "a/b:Q4/x-00001.GGUF"])
def test_a_gguf_file_of_hugging_face_is_its_own_name(source: str) -> None:
    assert parse_models([source, f"small={source}"]) == [
        ModelArgument(name=source, source=source),
        ModelArgument(name="small", source=source),
    ]


@pytest.mark.parametrize("argument", ["a/b:../x.gguf", "a/b:c/../../x.gguf", "a/b:/etc/x.gguf", "../b:x.gguf"])
def test_a_file_outside_of_a_repository_is_no_file_of_it(argument: str) -> None:
    with pytest.raises(ModelArgumentInvalid, match="there is no model file"):
        parse_models([argument])


def test_a_package_is_named_by_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)

    assert parse_models(["smollm2", "small=smollm2"]) == [
        ModelArgument(name="smollm2", source="smollm2"),
        ModelArgument(name="small", source="smollm2"),
    ]


def test_the_default_is_a_model_that_the_bundled_one_may_stand_in_for() -> None:
    assert parse_models([]) == [ModelArgument(name="smollm2", source="smollm2", is_default=True)]
    assert parse_models(["demo"])[0].source == bundled_model().source
