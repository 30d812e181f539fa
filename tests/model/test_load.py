import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from msgspec import structs
from structlog.testing import capture_logs
from tokenizers import Tokenizer

from storage.errors import ModelFilesMissing, ModelUnsupported, SettingInvalid
from storage.model_manifest import GenerationDefaults
from tests.model.conftest import LIMITS
from tests.model.gguf.files import make_gguf
from tests.model.tiny import CONTEXT_LENGTH, END_OF_TURN, make_tiny
from tests.waiting import wait_until
from workers.model.load import LoadedModel, load
from workers.model.native.library import Library
from workers.model.resources.memory_options import LoadLimits


def test_the_manifest_tells_the_api_all_it_needs(tiny: LoadedModel, tiny_folder: Path) -> None:
    manifest = tiny.manifest

    assert manifest.model == str(tiny_folder)
    assert manifest.context_length == CONTEXT_LENGTH == tiny.limits.max_len
    assert manifest.chat_template is not None
    assert manifest.special_tokens["eos_token"] == "<|im_end|>"
    assert manifest.num_token_ids == tiny.limits.vocab_size == 400
    assert manifest.capabilities == {
        "completion": True,
        "chat": True,
        "tools": True,
        "reasoning": False,
        "structured_output": True,
        "embedding": False,
        "fine_tuning": False,
    }
    text = "Grüße, 你好 🙂"
    tokenizer = Tokenizer.from_str(manifest.tokenizer_json)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_sampling_defaults_are_those_of_the_generation_configuration(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model")
    file = folder / "generation_config.json"
    own = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 7, "repetition_penalty": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))

    with capture_logs() as logged:
        loaded = load(str(folder), device="cpu", limits=LIMITS)

    assert loaded.manifest.generation_defaults == GenerationDefaults(temperature=0.6, top_k=20)
    ignored = [entry for entry in logged if entry["event"] == "generation_default_ignored"]
    assert [(entry["name"], entry["value"]) for entry in ignored] == [("top_p", "7")]


def test_a_model_without_sampling_defaults_has_none(tiny: LoadedModel) -> None:
    assert tiny.manifest.generation_defaults == GenerationDefaults()


def test_the_description_tells_what_was_planned(tiny: LoadedModel) -> None:
    assert "Qwen3ForCausalLM" in tiny.description
    assert "float32 on cpu" in tiny.description
    assert "24 blocks x 32 tokens" in tiny.description
    assert tiny.limits.eos_token_ids == {END_OF_TURN}


def test_a_served_name_and_a_budget_are_kept(tiny_folder: Path) -> None:
    # Three layers, two heads of 16, keys and values of 4 bytes: 768 bytes a token.
    limits = LoadLimits(max_running=50, max_len=100, kv_budget_bytes=7 * 32 * 768 + 5, kernel_folder=None)
    loaded = load(str(tiny_folder), device="cpu", limits=limits, served_name="mine")

    assert loaded.manifest.model == "mine"
    assert (loaded.limits.num_blocks, loaded.limits.max_len) == (7, 100)


def test_a_budget_that_holds_no_sequence_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(SettingInvalid, match="kv_budget_bytes"):
        load(str(tiny_folder), device="cpu", limits=LoadLimits(kv_budget_bytes=1000))


def test_a_model_whose_positions_stretch_with_length_keeps_to_its_first_length(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}
    folder = make_tiny(tmp_path / "model", "llama", rope_parameters=rope)

    assert load(str(folder), device="cpu", limits=LIMITS).limits.max_len == 32


def test_folders_that_hold_no_model_are_refused_with_a_hint(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ModelFilesMissing, match="There is no file or folder"):
        load(str(tmp_path / "nothing"))
    with pytest.raises(ModelFilesMissing, match=r"config\.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFilesMissing, match="safetensors"):
        load(str(tmp_path))
    with pytest.raises(ModelUnsupported, match="is a file"):
        load(str(tiny_folder / "model.safetensors"))


def changed(folder: Path, **config: object) -> Path:
    """The model with another configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_unknown_architectures_and_code_of_the_models_own_are_refused(tmp_path: Path) -> None:
    folder = changed(make_tiny(tmp_path / "a"), model_type="mystery", auto_map={"AutoConfig": "mine.Config"})

    with pytest.raises(ModelUnsupported, match="transformers cannot load"):
        load(str(folder), device="cpu")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    folder = changed(make_tiny(tmp_path / "a"), quantization_config={"quant_method": "gptq", "bits": 4})

    with pytest.raises(ModelUnsupported, match="Quantised"):
        load(str(folder), device="cpu")


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    folder = changed(make_tiny(tmp_path / "a"), num_hidden_layers=4, layer_types=["full_attention"] * 4)

    with pytest.raises(ModelFilesMissing, match="weights are missing"):
        load(str(folder), device="cpu")


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a")
    for path in folder.glob("tokenizer*"):
        path.unlink()

    with pytest.raises((ModelFilesMissing, ModelUnsupported), match="tokenizer"):
        load(str(folder), device="cpu")


def test_a_gpu_that_is_not_there_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(SettingInvalid, match="no GPU"):
        load(str(tiny_folder), device="cuda")


def test_a_gguf_file_is_converted_and_then_served_under_its_own_template(tmp_path: Path) -> None:
    path = make_gguf(tmp_path)
    limits = replace(LIMITS, model_folder=tmp_path / "models")

    loaded, original = (load(str(source), device="cpu", limits=limits) for source in (path, tmp_path / "original"))

    assert "kernels: weights" in loaded.description
    # The tokenizer has names for ids that the original leaves without one.
    same = {"model": str(path), "tokenizer_json": loaded.manifest.tokenizer_json}
    assert loaded.manifest == structs.replace(original.manifest, **same)
    assert loaded.limits == original.limits
    assert [folder.parent for folder in tmp_path.rglob("source.json")] == list(
        (tmp_path / "models/converted").glob("m*")
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start waits for it")
def test_the_cache_is_in_main_memory_soon_after_the_start(
    library: Library, tiny_folder: Path, shared_folder: Path
) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    limits = LoadLimits(max_running=4000, kernel_folder=shared_folder / "native", kv_budget_bytes=400 << 20)

    loaded = load(str(tiny_folder), device="cpu", limits=limits)

    found = re.search(r"(\d+) MiB; sequences", loaded.description)
    assert found is not None
    cache_bytes = int(found[1]) << 20
    assert cache_bytes >= 200 << 20
    wait_until(lambda: process.memory_info().rss - before > cache_bytes, 30.0, "the pages of the cache")
