"""What `--model` means, judged before anything starts."""

from pathlib import Path

import pytest

from api.cli.models.model_argument import ModelArgument, ModelArgumentInvalid, parse_models


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
