"""Loads a model for the engine, by its name. Call it in the thread that will step."""

import importlib
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from msgspec import structs
from tokenizers import Tokenizer

from storage.errors import ModelUnsupported
from storage.model_manifest import ModelManifest
from workers.constraint.grammars import Grammars
from workers.engine.step_limits import EngineLimits
from workers.model.gguf.conversion_source import find_converted
from workers.model.native.assembly import native_bytes_per_token, native_runner
from workers.model.native.build import Build
from workers.model.native.library import Library
from workers.model.prepared_model import ModelRunner, Prepared, prepared_natively
from workers.model.progress import Report, counted, write_to
from workers.model.resources import devices
from workers.model.resources.cache_budget import cache_plan
from workers.model.resources.devices import DeviceName, DtypeName
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary
from workers.model.source import source_of
from workers.model.start_record import ModelFacts, StartRecord, tensors_of
from workers.model.validation import check_agreement, validation_ids, validation_logits
from workers.text.stream import TextFactory, factory_of
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
    grammars: Grammars
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

    source: `demo` for the bundled model, a local folder, a GGUF file, or a Hugging Face id (safetensors only, no remote
            code); `ORG/REPO:FILE.gguf` is a GGUF file there
    report: called while the weights are converted and loaded, with the number of tensors done and of all

    Raises ModelFilesMissing, ModelUnsupported, and SettingInvalid for a device that is not there or a cache budget
    that holds not one sequence.
    """
    started = time.monotonic()
    limits = limits or LoadLimits()
    num_threads = limits.num_threads or devices.NUM_THREADS
    torch.set_num_threads(num_threads)
    where = devices.device_of(device)
    number_type = devices.dtype_of(dtype, where)
    folder = _kernel_folder(where, limits)
    path = _folder_of(source_of(source), number_type, limits, report)
    record = None if folder is None else StartRecord(folder, path, number_type)
    # The kernels compile while the model is read.
    with closing(Build(folder, limits.instruction_set)) as build:
        known = None if record is None else _load_recorded(path, record, number_type, limits, report, build)
        facts, prepared = known or _load_with_transformers(path, where, number_type, limits, report, build, record)
    if prepared.native is not None:
        # Its threads and torch's would take the cores from each other, each spinning while the others compute.
        torch.set_num_threads(1)
    name = served_name or source
    description = _describe(name, facts, prepared, where, number_type, num_threads, time.monotonic() - started)
    log.info("model_loaded", model=name, description=description)
    tokenizer = Tokenizer.from_str(facts.manifest.tokenizer_json)
    return LoadedModel(
        runner=prepared.runner,
        text=factory_of(tokenizer),
        token_bytes=TokenBytes(tokenizer),
        grammars=Grammars(
            facts.manifest.tokenizer_json, vocab_size=facts.num_token_ids, eos_token_ids=facts.eos_token_ids
        ),
        limits=_engine_limits(facts, prepared, limits, where),
        manifest=structs.replace(facts.manifest, model=name, context_length=prepared.plan.max_len),
        device=where.type,
        dtype=_name_of(number_type),
        description=description,
    )


def is_recorded(source: str, dtype: DtypeName, kernel_folder: Path | None, model_folder: Path) -> bool:
    """Whether a start on the CPU needs no transformers."""
    number_type = devices.dtype_of(dtype, torch.device("cpu"))
    found: str | Path | None = source_of(source, may_download=False)
    if isinstance(found, Path):
        found = find_converted(found, _name_of(number_type), _conversions(model_folder))
    if kernel_folder is None or found is None:
        return False
    return StartRecord(kernel_folder.expanduser(), str(found), number_type).exists()


def _folder_of(source: str | Path, dtype: torch.dtype, limits: LoadLimits, report: Report) -> str:
    """A folder or a Hugging Face id: of a GGUF file the folder that it was converted into, now if it never was."""
    if isinstance(source, str):
        return source
    cache = _conversions(limits.model_folder)
    folder = find_converted(source, _name_of(dtype), cache)
    if folder is None:
        # Imported here because it imports transformers, which takes seconds.
        module = importlib.import_module("workers.model.gguf.conversion_cache")
        folder = module.converted_folder(source, dtype, cache, report)
    return str(folder)


def _conversions(model_folder: Path) -> Path:
    return model_folder.expanduser() / "converted"


def _load_recorded(
    source: str, record: StartRecord, dtype: torch.dtype, limits: LoadLimits, report: Report, build: Build
) -> tuple[ModelFacts, Prepared] | None:
    """The model by its record, on the native library; None without a record or a library that computes the same."""
    recorded = record.read()
    library = None if recorded is None else _library(build)
    if recorded is None or library is None:
        return None
    facts, native = recorded
    weight_map = native.weight_map
    token_bytes = native_bytes_per_token(weight_map, dtype)
    plan = cache_plan(facts.manifest.context_length, torch.device("cpu"), limits, token_bytes)
    read = counted(tensors_of(Path(source)), len(weight_map.tensor_names()), report)
    vocabulary = Vocabulary(size=facts.num_token_ids, eos_token_ids=facts.eos_token_ids)
    runner = native_runner(library, weight_map, read, dtype, plan, limits, vocabulary)
    try:
        found = validation_logits(runner, validation_ids(weight_map.vocab_size))
        check_agreement(native.expected, found, dtype)
    except ModelUnsupported as error:
        log.warning("native_disagrees", model=source, reason=error.message)
        return None
    return facts, prepared_natively(runner, plan, native)


def _load_with_transformers(
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    limits: LoadLimits,
    report: Report,
    build: Build,
    record: StartRecord | None,
) -> tuple[ModelFacts, Prepared]:
    # Imported here because it imports transformers, which takes seconds.
    module = importlib.import_module("workers.model.transformers_load")
    loaded: tuple[ModelFacts, Prepared] = module.load_with_transformers(
        source, device, dtype, limits, report, lambda: _library(build), record
    )
    return loaded


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


def _engine_limits(facts: ModelFacts, prepared: Prepared, limits: LoadLimits, where: torch.device) -> EngineLimits:
    plan = prepared.plan
    return EngineLimits(
        max_running=limits.max_running,
        max_len=plan.max_len,
        num_blocks=plan.num_blocks,
        block_size=plan.block_size,
        max_batch_tokens=max(limits.max_batch_tokens, limits.max_running),
        vocab_size=facts.num_token_ids,
        eos_token_ids=frozenset(facts.eos_token_ids),
        max_prefill_tokens=_PREFILL_TOKENS[where.type],
    )


def _describe(
    name: str,
    facts: ModelFacts,
    prepared: Prepared,
    where: torch.device,
    dtype: torch.dtype,
    num_threads: int,
    took_s: float,
) -> str:
    plan = prepared.plan
    return (
        f"{name}: {facts.architecture}, {facts.num_parameters / 1e6:.1f}M parameters, {_name_of(dtype)} on "
        f"{where.type} ({num_threads} threads, {prepared.how}); cache of {plan.num_blocks} blocks x "
        f"{plan.block_size} tokens, {plan.size_bytes / _MIB:.0f} MiB; sequences of {plan.max_len} tokens at most; "
        f"loaded in {took_s:.1f} s"
    )


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
