"""A converted GGUF file is the model that it was made of: the same logits, tokens, template and end tokens."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from storage.errors import ModelUnsupported
from tests.model.gguf.files import make_gguf, write_gguf
from tests.model.tiny import CONTEXT_LENGTH, END_OF_TURN, make_tiny
from tests.text.tokenizers import CORPUS
from workers.model.gguf.conversion import convert
from workers.model.progress import Phase

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 20000.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
GEMMA: dict[str, object] = {"tie_word_embeddings": True, "query_pre_attn_scalar": 16, "sliding_window": 8}

MODELS: list[tuple[str, dict[str, object]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"rope_parameters": DEFAULT}),
    ("llama", {"rope_parameters": LINEAR}),
    ("llama", {"rope_parameters": YARN}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"head_dim": 32}),
    ("llama", {"num_key_value_heads": 4}),
    ("mistral", {"sliding_window": 8}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen2", {"rope_parameters": YARN}),
    ("qwen3", {}),
    ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    ("gemma2", GEMMA | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0}),
    ("gemma3_text", GEMMA | {"num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPE}),
    ("phi3", {"sliding_window": 8}),
    ("phi3", {"partial_rotary_factor": 0.5}),
]


def converted(path: Path, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The file, converted into the folder."""
    folder.mkdir()
    convert(path, folder, dtype, lambda *_: None)
    return folder


@torch.inference_mode()
def logits(folder: Path) -> torch.Tensor:
    """Logits of all positions, in float32."""
    token_ids = torch.arange(100).unsqueeze(0) * 7919 % 390
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found: torch.Tensor = model(input_ids=token_ids, use_cache=False).logits[0]
    return found


@pytest.mark.parametrize(("model_type", "changes"), MODELS, ids=lambda value: str(value) if value else "plain")
def test_the_logits_are_those_of_the_original(model_type: str, changes: dict[str, object], tmp_path: Path) -> None:
    path = make_gguf(tmp_path, model_type, **changes)

    folder = converted(path, tmp_path / "converted")

    torch.testing.assert_close(logits(folder), logits(tmp_path / "original"), atol=1e-5, rtol=1e-5)


def test_quantised_weights_are_those_that_the_file_stands_for(tmp_path: Path) -> None:
    original = make_tiny(tmp_path / "original", "llama")
    path = write_gguf(original, tmp_path / "model.gguf", quantization=GGMLQuantizationType.Q8_0)

    folder = converted(path, tmp_path / "converted")

    name = "model.layers.0.mlp.up_proj.weight"
    before = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32).state_dict()[name].numpy()
    after = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()[name].numpy()
    kind = GGMLQuantizationType.Q8_0
    np.testing.assert_array_equal(after, gguf.dequantize(gguf.quantize(before, kind), kind))
    assert not np.array_equal(before, after)


def test_weights_are_those_that_transformers_reads_from_the_file(tmp_path: Path) -> None:
    path = make_gguf(tmp_path, "llama", tie_word_embeddings=True)

    folder = converted(path, tmp_path / "converted")

    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_weights_are_kept_in_the_precision_that_is_served(tmp_path: Path) -> None:
    folder = converted(make_gguf(tmp_path), tmp_path / "converted", torch.bfloat16)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")

    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"])
def test_tokens_template_and_end_tokens_are_those_of_the_original(model_type: str, tmp_path: Path) -> None:
    path = make_gguf(tmp_path, model_type, change=lambda writer: writer.add_eot_token_id(2))

    folder = converted(path, tmp_path / "converted")

    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("original", "converted"))
    for text in [*CORPUS, "<s>Hi<|im_end|> 1234 <unk>", ""]:
        assert after(text).input_ids == before(text).input_ids
        assert after.decode(after(text).input_ids) == before.decode(before(text).input_ids)
    chat = [{"role": "user", "content": "Hi"}]
    assert after.apply_chat_template(chat) == before.apply_chat_template(chat)
    assert after.special_tokens_map == before.special_tokens_map
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, END_OF_TURN]


def test_sampling_parameters_of_the_file_are_those_of_the_model(tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_sampling_temp(0.6)
        writer.add_sampling_top_k(20)
        writer.add_sampling_top_p(0.95)

    folder = converted(make_gguf(tmp_path, change=add), tmp_path / "converted")

    named = GenerationConfig.from_pretrained(folder).to_diff_dict()
    assert {name: named.get(name) for name in ("temperature", "top_k", "top_p", "min_p")} == {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": None,
    }


def test_each_converted_tensor_is_reported(tmp_path: Path) -> None:
    reported: list[tuple[Phase, int, int]] = []
    path, folder = make_gguf(tmp_path), tmp_path / "converted"
    folder.mkdir()

    convert(path, folder, torch.float32, lambda *counts: reported.append(counts))

    total = reported[0][2]
    assert total == len(gguf.GGUFReader(path).tensors)
    assert reported == [(Phase.CONVERTING, done, total) for done in range(total + 1)]


def test_weights_that_the_model_has_no_place_for_are_refused(tmp_path: Path) -> None:
    path = make_gguf(
        tmp_path, change=lambda writer: writer.add_tensor("blk.0.attn_sinks.weight", np.ones(4, np.float32))
    )

    with pytest.raises(ModelUnsupported, match="this variant is not supported"):
        converted(path, tmp_path / "converted")


def test_rotary_factors_of_an_unknown_rule_are_refused(tmp_path: Path) -> None:
    factors = np.linspace(1.0, 3.0, 8, dtype=np.float32)
    path = make_gguf(tmp_path, change=lambda writer: writer.add_tensor("rope_freqs.weight", factors))

    with pytest.raises(ModelUnsupported, match="by a rule that is not known"):
        converted(path, tmp_path / "converted")


def test_the_context_is_that_of_the_file(tmp_path: Path) -> None:
    folder = converted(make_gguf(tmp_path), tmp_path / "converted")

    assert AutoModelForCausalLM.from_pretrained(folder).config.max_position_embeddings == CONTEXT_LENGTH


@pytest.mark.parametrize(("model_type", "name"), [("llama", "LlamaForCausalLM"), ("gemma3_text", "Gemma3ForCausalLM")])
def test_other_programs_find_the_class_of_the_model(model_type: str, name: str, tmp_path: Path) -> None:
    folder = converted(make_gguf(tmp_path, model_type), tmp_path / "converted")

    assert AutoConfig.from_pretrained(folder).architectures == [name]
