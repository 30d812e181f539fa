"""Reading a model with transformers, whose import takes seconds: at its first start, and where torch computes."""

from collections.abc import Callable

import torch
import transformers
from torch import nn

from workers.model import files
from workers.model.architecture import checks
from workers.model.end_tokens import end_token_ids
from workers.model.manifest import fast, manifest_of
from workers.model.native.library import Library
from workers.model.preparation import prepare
from workers.model.prepared_model import Prepared
from workers.model.progress import Report
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary
from workers.model.start_record import ModelFacts, StartRecord


def load_with_transformers(
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    limits: LoadLimits,
    report: Report,
    library: Callable[[], Library | None],
    record: StartRecord | None,
) -> tuple[ModelFacts, Prepared]:
    """The model, read, checked and validated.

    library: called once the model is read; the kernels may compile meanwhile
    record:  is written where the native library computes the model

    Raises ModelFilesMissing, ModelUnsupported and SettingInvalid.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it bare
    loaded = files.read(source, dtype, device, report)
    facts = _facts_of(source, loaded)
    vocabulary = Vocabulary(size=facts.num_token_ids, eos_token_ids=facts.eos_token_ids)
    prepared = prepare(loaded.model, limits, vocabulary, library())
    if record is not None and prepared.native is not None:
        record.write(facts, prepared.native, dict(loaded.model.named_parameters()).__getitem__)
    return facts, prepared


def _facts_of(source: str, loaded: files.ModelFiles) -> ModelFacts:
    embeddings = loaded.model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    manifest = manifest_of(
        fast(loaded.tokenizer),
        loaded.model.generation_config,
        model=source,
        context_length=checks.context_length_of(loaded.config),
        num_token_ids=embeddings.num_embeddings,
    )
    return ModelFacts(
        architecture=type(loaded.model).__name__,
        num_parameters=loaded.num_parameters,
        manifest=manifest,
        # As many ids as the model has embedding rows.
        num_token_ids=embeddings.num_embeddings,
        eos_token_ids=tuple(sorted(end_token_ids(loaded))),
    )
