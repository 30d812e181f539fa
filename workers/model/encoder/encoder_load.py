"""Loads an encoder and validates that it computes what the unmodified model computes. Call it in the thread that steps.

Imports transformers, which takes seconds.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from tokenizers import Tokenizer, normalizers
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from storage.errors import ModelFilesMissing, ModelUnsupported
from storage.model_manifest import EmbeddingAbilities, ModelManifest
from workers.engine.encoder_engine import EncoderLimits
from workers.model.architecture.sentence_folder import EncoderFolder, Pooling
from workers.model.encoder import packed_attention
from workers.model.encoder.bert_network import bert_network
from workers.model.encoder.encoder_network import Batch, Network, PackedNetwork, PlainNetwork, first_position_of
from workers.model.encoder.text_encoder import TextEncoder
from workers.model.encoder.text_pooling import pooled
from workers.model.files import explained, tokenizer_of
from workers.model.manifest import fast
from workers.model.progress import Report
from workers.model.resources import devices
from workers.model.resources.devices import DeviceName, DtypeName
from workers.model.resources.main_memory import main_memory_bytes
from workers.model.resources.memory_options import LoadLimits
from workers.model.torch.linears import pack_linears
from workers.model.transformers_progress import reporting

# Tokens of a step: on a CPU enough for the matrix products, and few enough that a short text waits little for a batch
# under way (`bench/README.md`).
_STEP_TOKENS = {"cpu": 1024, "cuda": 16384}
# Texts of the validation: their lengths cross windows and stand alone and in groups.
_VALIDATION_LENGTHS = (3, 17, 17, 70, 150)
# The least cosine of a text in a batch to the same text alone in the unmodified model.
_LEAST_COSINE = {torch.float32: 0.99999, torch.bfloat16: 0.99}
_PLAIN = "texts of equal length together"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEncoder:
    """An encoder ready to run: `EncoderEngine(loaded.runner, loaded.limits)`."""

    runner: TextEncoder
    limits: EncoderLimits
    manifest: ModelManifest
    device: str
    dtype: str


def load_encoder(
    source: Path,
    folder: EncoderFolder,
    *,
    device: DeviceName,
    dtype: DtypeName,
    limits: LoadLimits,
    served_name: str,
    report: Report,
) -> LoadedEncoder:
    """The encoder, read, checked and ready.

    Raises ModelFilesMissing, ModelUnsupported, and SettingInvalid for a device that is not there.
    """
    started = time.monotonic()
    torch.set_num_threads(limits.num_threads or devices.NUM_THREADS)
    where = devices.device_of(device)
    number_type = devices.dtype_of(dtype, where)
    with explained(str(source)), reporting(report):
        model = _read(source, folder, number_type, where)
        tokenizer = _tokenizer(source, folder)
    max_len = min(_max_len(model, tokenizer, folder), limits.max_len)
    network, how = _network(model, folder, max_len, set(tokenizer.all_special_ids))
    manifest = _manifest(model, tokenizer, folder, served_name, max_len)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    log.info(
        "encoder_loaded",
        model=served_name,
        architecture=type(model).__name__,
        num_parameters=num_parameters,
        dtype=str(number_type),
        how=how,
        took_s=round(time.monotonic() - started, 1),
    )
    return LoadedEncoder(
        runner=TextEncoder(network, folder),
        limits=EncoderLimits(
            max_len=max_len, vocab_size=_num_token_ids(model), max_batch_tokens=_STEP_TOKENS[where.type]
        ),
        manifest=manifest,
        device=where.type,
        dtype=str(number_type).removeprefix("torch."),
    )


def _read(source: Path, folder: EncoderFolder, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "quantization_config", None) is not None:
        raise ModelUnsupported("Encoder-decoders and quantised weights are not supported as encoders")
    kind = AutoModel if folder.pooling is not None else AutoModelForSequenceClassification
    # Typed by hand: transformers' annotation leaves out that loading info makes it a pair.
    loaded: tuple[PreTrainedModel, dict[str, object]] = kind.from_pretrained(
        source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    model, info = loaded
    # The hidden states need no pooler, and many folders have none.
    ignored = "pooler." if folder.pooling is not None else "\0"
    absent = [
        name
        for kind_of_fault in ("missing_keys", "mismatched_keys")
        for name in map(str, info.get(kind_of_fault) or ())  # type: ignore[call-overload]  # transformers' own lists
        if not name.startswith(ignored)
    ]
    if absent:
        raise ModelFilesMissing(f"{len(absent)} weights are missing or of another shape, the first is {min(absent)}")
    model.requires_grad_(False)
    model.train(mode=False)
    model.to(device)  # type: ignore[arg-type]  # a decorator of transformers hides torch's signature
    return model


def _tokenizer(source: Path, folder: EncoderFolder) -> PreTrainedTokenizerFast:
    tokenizer = fast(tokenizer_of(str(source)))
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if folder.is_lowercased:
        own = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer


def _max_len(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: EncoderFolder) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    known = [folder.max_len] if folder.max_len is not None else [tokenizer.model_max_length]
    if isinstance(positions, int) and positions > 0:
        known.append(positions - first_position_of(model))
    return min(known)


def _num_token_ids(model: PreTrainedModel) -> int:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.shape[0]


def _manifest(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: EncoderFolder, name: str, max_len: int
) -> ModelManifest:
    size = int(model.config.get_text_config().hidden_size)
    is_pair = folder.pooling is None
    return ModelManifest(
        model=name,
        context_length=max_len,
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        chat_template=None,
        special_tokens={key: str(token) for key, token in tokenizer.special_tokens_map.items()},
        capabilities={
            "completion": False,
            "chat": False,
            "embedding": not is_pair,
            "rerank": True,
            "fine_tuning": False,
        },
        num_token_ids=_num_token_ids(model),
        embedding=EmbeddingAbilities(
            dimensions=None if is_pair else size,
            allowed_dimensions=tuple(number for number in folder.dimensions if number < size),
            is_normalized=folder.is_normalized,
            prompts=dict(folder.prompts),
            default_prompt=folder.default_prompt,
        ),
    )


@torch.inference_mode()
def _network(model: PreTrainedModel, folder: EncoderFolder, max_len: int, special_ids: set[int]) -> tuple[Network, str]:
    """What computes the model, and how, for people: the fastest that gives the vectors of the unmodified model."""
    plain = PlainNetwork(model)
    pooling = folder.pooling
    if pooling is None:
        return plain, _PLAIN
    texts = _validation_texts(_num_token_ids(model), max_len, special_ids)
    expected = [pooled(next(plain.outputs(Batch([text], [None]))), pooling)[0] for text in texts]
    implementation = model.config._attn_implementation
    makers = {"packed texts, fused layers": _fused, "packed texts": _packed}
    for how, make in makers.items():
        try:
            network = make(model)
            if network is not None and _agrees(network, pooling, texts, expected, model.dtype):
                return network, how
        except Exception as error:  # noqa: BLE001 - whatever an architecture raises that cannot run so
            log.warning("encoder_not_computed_so", how=how, reason=f"{type(error).__name__}: {error}"[:300])
    packed_attention.detach(model)
    model.set_attn_implementation(implementation)
    return plain, _PLAIN


def _fused(model: PreTrainedModel) -> Network | None:
    return bert_network(model) if _may_pack(model) else None


def _packed(model: PreTrainedModel) -> Network:
    if _may_pack(model):
        pack_linears(model)
    return PackedNetwork(model)


def _agrees(
    network: Network, pooling: Pooling, texts: list[list[int]], expected: list[Tensor], dtype: torch.dtype
) -> bool:
    """Whether the network gives each text in one batch the vector that it has alone in the unmodified model."""
    batch = Batch(texts, [None] * len(texts))
    rows = torch.cat([pooled(output, pooling) for output in network.outputs(batch)])
    wanted = torch.stack([expected[number] for number in batch.order])
    least = float(functional.cosine_similarity(rows, wanted).min())
    if least < _LEAST_COSINE[dtype]:
        log.warning("encoder_disagrees", network=type(network).__name__, cosine=least)
    return least >= _LEAST_COSINE[dtype]


def _validation_texts(vocab_size: int, max_len: int, special_ids: set[int]) -> list[list[int]]:
    """Ids without special ones, of lengths that differ."""
    ordinary = [token_id for token_id in range(vocab_size) if token_id not in special_ids]
    return [
        [ordinary[(7919 * (place + 31 * number) + 13) % len(ordinary)] for place in range(min(length, max_len))]
        for number, length in enumerate(_VALIDATION_LENGTHS)
    ]


def _may_pack(model: PreTrainedModel) -> bool:
    """Whether weights may be packed: the second copy must take no more than a quarter of main memory."""
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return model.device.type == "cpu" and size_bytes <= main_memory_bytes() // 4
