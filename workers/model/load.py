"""Loads a model for the engine, by its name. Call it in the thread that will step."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
import transformers
from torch import nn

from storage.contract import ModelManifest
from workers.engine.step_limits import EngineLimits
from workers.model import files, manifest
from workers.model.end_tokens import end_token_ids
from workers.model.native.build import Build
from workers.model.native.library import Library
from workers.model.preparation import ModelRunner, Prepared, prepare
from workers.model.progress import Report, write_to
from workers.model.resources import devices
from workers.model.resources.devices import DeviceName, DtypeName
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary
from workers.model.source import source_of
from workers.text.stream import TextFactory
from workers.text.token_bytes import TokenBytes

_MIB = 1 << 20
# Tokens of a prompt that a step reads beside 16 streams: on a CPU so many that a step takes two to three times as long
# (`bench/README.md`). A GPU computes many more in the time of one decode step; not measured.
_PREFILL_TOKENS = {"cpu": 48, "cuda": 512}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run: `Engine(loaded.runner, loaded.text, loaded.limits)`.

    description: one line for people: device, numbers, memory, what the cache holds
    """

    runner: ModelRunner
    text: TextFactory
    token_bytes: TokenBytes
    limits: EngineLimits
    manifest: ModelManifest
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
    report: Report = write_to(None),
) -> LoadedModel:
    """The model, read, checked and ready.

    source: `demo` for the bundled model, a local folder, or a Hugging Face id (safetensors only, no remote code)
    report: called while the weights are loaded, with the number of tensors done and of all

    Raises ModelFilesMissing, ModelUnsupported, and SettingInvalid for a device that is not there or a cache budget
    that holds not one sequence.
    """
    started = time.monotonic()
    limits = limits or LoadLimits()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it bare
    num_threads = limits.num_threads or devices.NUM_THREADS
    torch.set_num_threads(num_threads)
    where = devices.device_of(device)
    # The kernels compile while transformers reads the model.
    with closing(Build(_kernel_folder(where, limits))) as build:
        loaded = files.read(source_of(source), devices.dtype_of(dtype, where), where, report)
        tokenizer = manifest.fast(loaded.tokenizer)
        library = _library(build)
    vocabulary = _vocabulary(loaded)
    prepared = prepare(loaded.model, limits, vocabulary, library)
    if prepared.is_native:
        # Its threads and torch's would take the cores from each other, each spinning while the others compute.
        torch.set_num_threads(1)
    name = served_name or source
    description = _describe(name, loaded, prepared, num_threads, time.monotonic() - started)
    log.info("model_loaded", model=name, description=description)
    return LoadedModel(
        runner=prepared.runner,
        text=manifest.text_of(tokenizer),
        token_bytes=TokenBytes(tokenizer.backend_tokenizer),
        limits=_engine_limits(loaded, prepared, limits, vocabulary),
        manifest=manifest.manifest_of(
            tokenizer, model=name, context_length=prepared.plan.max_len, num_token_ids=vocabulary.size
        ),
        device=where.type,
        dtype=_name_of(loaded),
        description=description,
    )


def _kernel_folder(where: torch.device, limits: LoadLimits) -> Path | None:
    if where.type != "cpu" or limits.kernel_folder is None:
        return None
    return limits.kernel_folder.expanduser()


def _library(build: Build) -> Library | None:
    path = build.wait()
    try:
        return None if path is None else Library(path)
    except OSError as error:
        log.warning("native_unavailable", reason=str(error))
        return None


def _vocabulary(loaded: files.ModelFiles) -> Vocabulary:
    """The vocabulary: as many ids as the model has embedding rows."""
    embeddings = loaded.model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    return Vocabulary(size=embeddings.num_embeddings, eos_token_ids=end_token_ids(loaded))


def _engine_limits(
    loaded: files.ModelFiles, prepared: Prepared, limits: LoadLimits, vocabulary: Vocabulary
) -> EngineLimits:
    plan = prepared.plan
    return EngineLimits(
        max_running=limits.max_running,
        max_len=plan.max_len,
        num_blocks=plan.num_blocks,
        block_size=plan.block_size,
        max_batch_tokens=max(limits.max_batch_tokens, limits.max_running),
        vocab_size=vocabulary.size,
        eos_token_ids=frozenset(vocabulary.eos_token_ids),
        max_prefill_tokens=_PREFILL_TOKENS[loaded.model.device.type],
    )


def _describe(name: str, loaded: files.ModelFiles, prepared: Prepared, num_threads: int, took_s: float) -> str:
    plan, model = prepared.plan, loaded.model
    return (
        f"{name}: {type(model).__name__}, {loaded.num_parameters / 1e6:.1f}M parameters, {_name_of(loaded)} on "
        f"{model.device.type} ({num_threads} threads, {prepared.how}); cache of {plan.num_blocks} blocks x "
        f"{plan.block_size} tokens, {plan.size_bytes / _MIB:.0f} MiB; sequences of {plan.max_len} tokens at most; "
        f"loaded in {took_s:.1f} s"
    )


def _name_of(loaded: files.ModelFiles) -> str:
    return str(loaded.model.dtype).removeprefix("torch.")
