"""Greedy tokens equal those of transformers' own `generate`, or the model is refused when it is loaded."""

from array import array
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from storage.contract import SamplingParams
from storage.errors import ModelUnsupported
from tests.engine.checked import ids_of, run
from tests.model.conftest import LIMITS, greedy, prompt
from tests.model.tiny import make_tiny
from workers.engine.engine import Engine
from workers.engine.runner import Chunk
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel, load

# Windows are shorter than the prompts, and softcaps so low that they bend every score.
EQUAL: dict[str, dict[str, object]] = {
    "qwen3": {},
    "llama": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "qwen2": {},
    "mistral": {"sliding_window": 8},
    "gemma2": {"sliding_window": 8, "attn_logit_softcapping": 1.0, "final_logit_softcapping": 5.0},
    "gemma3_text": {"sliding_window": 8},
    "phi3": {"sliding_window": 8},
    "olmo2": {},
    "cohere2": {"sliding_window": 8, "logit_scale": 0.5},
    "granite": {"logits_scaling": 3.0},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "gpt_neox": {},
    "opt": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "gemma": {},
    "olmo3": {"sliding_window": 8},
    "smollm3": {},
    "starcoder2": {"sliding_window": 8},
    "stablelm": {},
    "glm": {},
    "glm4": {},
    "exaone4": {"sliding_window": 8, "sliding_window_pattern": 2},
    "mixtral": {"num_local_experts": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "ministral": {"sliding_window": 8},
    "ministral3": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": 2},
    "ernie4_5": {},
    "seed_oss": {},
    "arcee": {},
    "apertus": {},
    "phi": {},
    "nemotron": {},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere": {},
    "helium": {},
    "gpt_bigcode": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "olmo": {},
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    | {"n_group": 1, "topk_group": 1},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    | {"shared_expert_intermediate_size": 64},
}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "qwen3_next": ({}, "linear_attention"),
    "llama4_text": ({}, "chunked_attention"),
    "mamba": ({}, "Recurrent"),
    "rwkv": ({}, "Recurrent"),
    "lfm2": ({"layer_types": ["conv", "full_attention", "conv"]}, "Layers of type conv"),
    "bloom": ({}, "position_ids"),
    "mpt": ({}, "position_ids"),
    "gptj": ({"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "rotary_dim": 8}, "0 of 3 layers"),
    "diffllama": ({}, "share one attention"),
    "falcon": ({"alibi": True}, "ALiBi"),
    "falcon ": ({"new_decoder_architecture": False}, "0 of 3 layers"),
    "gpt_oss": ({"num_local_experts": 4, "num_experts_per_tok": 2}, "s_aux"),
    "deepseek_v3": (
        {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "kv_lora_rank": 16, "head_dim": 8}
        | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": None}
        | {"num_key_value_heads": 4},
        "Keys of shape",
    ),
}


def read(folder: Path) -> PreTrainedModel:
    """The model as transformers has it."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model


def generated(model: PreTrainedModel, request: SequenceRequest, eos_token_ids: list[int]) -> list[int]:
    """What transformers says."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=request.sampling.max_tokens, eos_token_id=eos_token_ids, pad_token_id=0
    )
    ids = torch.tensor([request.prompt])
    output = model.generate(ids, generation_config=config, attention_mask=torch.ones_like(ids))
    return output[0, len(request.prompt) :].tolist()  # type: ignore[no-any-return]  # torch leaves it open


def engine_of(loaded: LoadedModel) -> Engine:
    return Engine(loaded.runner, loaded.text, loaded.limits)


@pytest.mark.parametrize("model_type", EQUAL)
def test_greedy_tokens_equal_those_of_generate(model_type: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", model_type, **EQUAL[model_type])
    loaded = load(str(folder), device="cpu", limits=LIMITS)
    requests = [greedy(salt, num_prompt=3 + 9 * salt) for salt in range(5)]

    outputs = run(engine_of(loaded), *requests)

    model = read(folder)
    expected = [generated(model, one, list(loaded.limits.eos_token_ids)) for one in requests]
    assert [ids_of(outputs[one.sequence_id]) for one in requests] == expected
    assert len({token_id for ids in expected for token_id in ids}) > 10


# What bends attention must bend it here as well: measures at which nothing of it is left give other logits.
BENT: list[tuple[str, dict[str, object]]] = [
    *((name, {"sliding_window": 100}) for name, changes in EQUAL.items() if "sliding_window" in changes),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
]


@pytest.mark.parametrize(("name", "straight"), BENT, ids=str)
def test_sliding_windows_and_softcaps_matter(name: str, straight: dict[str, object], tmp_path: Path) -> None:
    bent, plain = (
        load(str(make_tiny(tmp_path / str(index), name, **EQUAL[name] | changes)), device="cpu", limits=LIMITS)
        for index, changes in enumerate(({}, straight))
    )
    ids = prompt(1, 40)
    chunk = Chunk(
        sequence_id="",
        blocks=array("i", [0, 1]),
        tokens=ids,
        start=0,
        end=40,
        num_prompt=40,
        sampling=SamplingParams(max_tokens=1),
        logits_from=39,
    )

    assert (bent.runner.logits([chunk]) - plain.runner.logits([chunk])).abs().max() > 0.1


@pytest.mark.parametrize("name", REFUSED)
def test_what_rows_cannot_serve_is_refused_at_load(name: str, tmp_path: Path) -> None:
    changes, why = REFUSED[name]
    folder = make_tiny(tmp_path / "model", name.strip(), **changes)

    with pytest.raises(ModelUnsupported, match=why):
        load(str(folder), device="cpu", limits=LIMITS)


def test_every_end_of_sequence_id_of_the_generation_configuration_ends_a_sequence(tmp_path: Path) -> None:
    plain = make_tiny(tmp_path / "plain", eos_token_id=[3])
    (request,) = [greedy(1, max_tokens=24)]
    whole = generated(read(plain), request, [3])
    folder = make_tiny(tmp_path / "listed", eos_token_id=[3, whole[5]])
    loaded = load(str(folder), device="cpu", limits=LIMITS)

    outputs = run(engine_of(loaded), request)[request.sequence_id]

    assert loaded.limits.eos_token_ids == {3, whole[5]}
    assert ids_of(outputs) == whole[: whole.index(whole[5]) + 1]
    assert ids_of(outputs) == generated(read(folder), request, [3, whole[5]])


def test_bfloat16_runs(tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder), device="cpu", dtype="bfloat16", limits=LIMITS)
    requests = [greedy(salt, num_prompt=3 + 9 * salt) for salt in range(5)]

    outputs = run(engine_of(loaded), *requests)

    assert loaded.dtype == "bfloat16"
    assert all(got[-1].finish is not None for got in outputs.values())
