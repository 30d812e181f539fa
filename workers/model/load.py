"""From a model's name to something that the engine can run. Call it in the thread that will step.

On a GPU the same rows serve, by the same torch operations; that path has not been run yet.
"""

import time
from dataclasses import dataclass

import structlog
import torch
import transformers
from torch import nn

from storage.contract import ModelCard
from workers.engine.limits import EngineLimits
from workers.model import card, devices, files
from workers.model.devices import DeviceName, DtypeName
from workers.model.limits import LoadLimits
from workers.model.preparation import Prepared, prepare
from workers.model.runner import TorchRunner
from workers.model.source import source_of
from workers.text.stream import TextFactory

_MIB = 1 << 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run: `Engine(loaded.runner, loaded.text, loaded.limits)`.

    description: one line for people: device, numbers, memory, what the cache holds
    """

    runner: TorchRunner
    text: TextFactory
    limits: EngineLimits
    card: ModelCard
    device: str
    dtype: str
    description: str


def load(
    source: str,
    *,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    limits: LoadLimits | None = None,
    served_name: str | None = None,
) -> LoadedModel:
    """The model, read, checked and ready.

    source: `demo` for the bundled model, a local folder, or a Hugging Face id (safetensors only, no remote code)

    Raises ModelFilesMissing, ModelUnsupported, and SettingInvalid for a device that is not there or a cache budget
    that holds not one sequence.
    """
    started = time.monotonic()
    limits = limits or LoadLimits()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it bare
    if limits.num_threads is not None:
        torch.set_num_threads(limits.num_threads)
    where = devices.device_of(device)
    loaded = files.read(source_of(source), devices.dtype_of(dtype, where), where)
    tokenizer = card.fast(loaded.tokenizer)
    prepared = prepare(loaded.model, limits, files.eos_token_ids(loaded))
    name = served_name or source
    description = _describe(name, loaded, prepared, time.monotonic() - started)
    log.info("model_loaded", model=name, description=description)
    return LoadedModel(
        runner=prepared.runner,
        text=card.text_of(tokenizer),
        limits=_engine_limits(loaded, prepared, limits),
        card=card.card_of(tokenizer, model=name, context_length=prepared.plan.max_len),
        device=where.type,
        dtype=_name_of(loaded),
        description=description,
    )


def _engine_limits(loaded: files.ModelFiles, prepared: Prepared, limits: LoadLimits) -> EngineLimits:
    plan = prepared.plan
    embeddings = loaded.model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    return EngineLimits(
        num_rows=plan.num_rows,
        max_len=plan.max_len,
        max_batch_tokens=max(limits.max_batch_tokens, plan.num_rows),
        vocab_size=embeddings.num_embeddings,
        eos_token_ids=files.eos_token_ids(loaded),
    )


def _describe(name: str, loaded: files.ModelFiles, prepared: Prepared, took_s: float) -> str:
    plan, model = prepared.plan, loaded.model
    return (
        f"{name}: {type(model).__name__}, {loaded.num_parameters / 1e6:.1f}M parameters, {_name_of(loaded)} on "
        f"{model.device.type} ({torch.get_num_threads()} threads, {prepared.num_packed} packed layers); "
        f"cache of {plan.num_rows} sequences x {plan.max_len} tokens, {plan.size_bytes / _MIB:.0f} MiB; "
        f"loaded in {took_s:.1f} s"
    )


def _name_of(loaded: files.ModelFiles) -> str:
    return str(loaded.model.dtype).removeprefix("torch.")
