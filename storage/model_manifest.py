"""What workers say of a served model: its manifest, its defaults and its status."""

from enum import StrEnum

import msgspec


class GenerationDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling parameters that a model's own `generation_config.json` names, for requests that do not; None is unnamed.

    Ranges are those of `SamplingParams`.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


class EmbeddingAbilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder makes of texts.

    dimensions:         numbers of a vector; None of a cross-encoder, which makes one score of a pair
    allowed_dimensions: numbers that a vector may be cut to, beside its whole length
    is_normalized:      whether its vectors are unit vectors
    prompts:            text before each input, by name (`query`, `document`, ...)
    default_prompt:     text before an input where no prompt is named
    """

    dimensions: int | None
    allowed_dimensions: tuple[int, ...] = ()
    is_normalized: bool = False
    prompts: dict[str, str] = {}
    default_prompt: str = ""


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A model manifest, published by a worker, so that the API needs no model files.

    tokenizer_json: the `tokenizers` library's serialised tokenizer
    chat_template:  a Jinja template as in transformers, None for a model without chat
    special_tokens: names as the template knows them (`bos_token`, `eos_token`, ...) to token text
    num_token_ids:  rows of the model's embedding, ids below it are legal; None in manifests of older workers
    response_template: the tokenizer's own description of its answers, as JSON text (see `api/protocol/families`)
    generation_defaults: sampling parameters of requests that name none
    embedding:      of an encoder, which generates nothing; None of all others
    """

    model: str
    context_length: int
    tokenizer_json: str
    chat_template: str | None
    special_tokens: dict[str, str]
    capabilities: dict[str, bool]
    num_token_ids: int | None = None
    response_template: str | None = None
    generation_defaults: GenerationDefaults = GenerationDefaults()
    embedding: EmbeddingAbilities | None = None


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A model as far as its files tell, and how a CPU worker of this machine would run it.

    runs:         `native` (the kernels of this platform), `torch`, or `refused`; None where the files are not here
    reason:       why it is refused, or why the native kernels do not compute it
    dtype:        precision of weights and cache
    memory_bytes: of a CPU worker that serves it: weights, usual cache, and the process itself
    """

    source: str
    architecture: str | None = None
    num_parameters: int | None = None
    context_length: int | None = None
    licence: str | None = None
    runs: str | None = None
    reason: str | None = None
    dtype: str | None = None
    memory_bytes: int | None = None


class ModelStatus(StrEnum):
    """Whether a model can run a job now, soon, or not at all."""

    READY = "ready"
    LOADING = "loading"
    OFFLINE = "offline"
    FAILED = "failed"
