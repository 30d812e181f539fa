"""Tiny encoders with random weights, in folders as sentence-transformers writes them."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

VOCAB_SIZE = 120
MAX_LEN = 48
SIZE = 32
PAD, CLS, SEP, UNKNOWN = 0, 1, 2, 3
_CONFIG: dict[str, object] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": SIZE,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "cls_token_id": CLS,
    "sep_token_id": SEP,
    "type_vocab_size": 2,
}
_OF_TYPE: dict[str, dict[str, object]] = {
    # A window that texts of the tests exceed.
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 3},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
}


def make_encoder(
    folder: Path,
    model_type: str = "bert",
    *,
    pooling: dict[str, object] | None = None,
    is_normalized: bool = True,
    settings: dict[str, object] | None = None,
    extra: dict[str, object] | None = None,
    **changes: object,
) -> Path:
    """A folder with a bi-encoder.

    settings: of sentence_bert_config.json; extra: of config_sentence_transformers.json; changes: of config.json
    """
    torch.manual_seed(0)
    model = AutoModel.from_config(
        AutoConfig.for_model(model_type, **(_CONFIG | _OF_TYPE.get(model_type, {}) | changes))
    )
    _mix(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if is_normalized else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": place, "name": str(place), "path": paths[place], "type": f"sentence_transformers.models.{kind}"}
        for place, kind in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(
        folder / "1_Pooling" / "config.json",
        pooling or {"word_embedding_dimension": SIZE, "pooling_mode_mean_tokens": True},
    )
    _write(folder / "sentence_bert_config.json", settings or {"max_seq_length": MAX_LEN, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", extra or {})
    return folder


def make_cross_encoder(folder: Path, model_type: str = "bert", *, num_labels: int = 1) -> Path:
    """A folder with a classifier of pairs."""
    torch.manual_seed(0)
    values = _CONFIG | _OF_TYPE.get(model_type, {}) | {"num_labels": num_labels}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **values))
    _mix(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of words `w4` to `w119`, between CLS and SEP; it pads, as files often say."""
    words = {"<pad>": PAD, "<cls>": CLS, "<sep>": SEP, "<unk>": UNKNOWN} | {
        f"w{number}": number for number in range(4, VOCAB_SIZE)
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", CLS), ("<sep>", SEP)]
    )
    tokenizer.enable_padding(length=MAX_LEN)
    tokenizer.enable_truncation(MAX_LEN)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        cls_token="<cls>",
        sep_token="<sep>",
        unk_token="<unk>",
        model_max_length=MAX_LEN,
    ).save_pretrained(folder)


def _mix(model: torch.nn.Module) -> None:
    """Larger weights, so that vectors of different texts differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
