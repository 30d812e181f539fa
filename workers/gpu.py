"""The generation worker's entry point: `celery -A workers.gpu worker`, settings from TOKENPOST_*."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from msgspec import structs

from storage.errors import SettingInvalid
from storage.process.garbage_collection import spare_the_collector
from storage.process.logging_setup import LogSettings
from storage.settings import StorageSettings
from workers.broker import celery_logging
from workers.engine.encoder_engine import EncoderEngine
from workers.engine.engine import Engine
from workers.generation.engine_thread import Loaded, TextTools
from workers.generation.pipeline.job_encoding import Encoding
from workers.generation.worker_app import create_worker_app
from workers.model import load as model
from workers.model.architecture.sentence_folder import EncoderFolder, find_encoder
from workers.model.progress import write_to
from workers.model.resources.memory_options import LoadLimits
from workers.model.source import folder_of, source_of
from workers.settings import WorkerSettings

_MIB = 1 << 20


def load(settings: WorkerSettings) -> Loaded:
    """The engine of the model that the settings name: an encoder's where its folder is one of sentence-transformers."""
    limits = LoadLimits(
        max_running=settings.max_running,
        max_len=settings.max_len,
        max_batch_tokens=settings.max_batch_tokens,
        kv_budget_bytes=None if settings.kv_budget_mb is None else settings.kv_budget_mb * _MIB,
        num_threads=settings.num_threads,
        kernel_folder=settings.kernel_folder if settings.native else None,
        model_folder=settings.model_folder,
        instruction_set=settings.instruction_set,
        is_compiled=settings.compiled,
    )
    source = source_of(settings.model)
    folder = folder_of(source) if isinstance(source, str) else None
    encoder = None if folder is None else find_encoder(folder)
    if folder is not None and encoder is not None:
        return _load_encoder(settings, limits, folder, encoder)
    return _load_generator(settings, limits)


def _load_generator(settings: WorkerSettings, limits: LoadLimits) -> Loaded:
    loaded = model.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        limits=limits,
        served_name=settings.name,
        report=write_to(settings.progress_file),
    )
    engine = Engine(loaded.runner, loaded.text, replace(loaded.limits, aging_after_s=settings.aging_after_s))
    spare_the_collector()
    return Loaded(
        engine=engine,
        manifest=loaded.manifest,
        text=TextTools(token_bytes=loaded.token_bytes, grammars=loaded.grammars),
        device=loaded.device,
        dtype=loaded.dtype,
    )


def _load_encoder(settings: WorkerSettings, limits: LoadLimits, folder: Path, encoder: EncoderFolder) -> Loaded:
    # Imported here because it imports transformers, which takes seconds.
    module = importlib.import_module("workers.model.encoder.encoder_load")
    loaded = module.load_encoder(
        folder,
        encoder,
        device=settings.device,
        dtype=settings.dtype,
        limits=limits,
        served_name=settings.name,
        report=write_to(settings.progress_file),
    )
    engine = EncoderEngine(loaded.runner, structs.replace(loaded.limits, aging_after_s=settings.aging_after_s))
    spare_the_collector()
    return Loaded(
        engine=engine,
        manifest=loaded.manifest,
        text=None,
        device=loaded.device,
        dtype=loaded.dtype,
        new_job=Encoding,
    )


try:
    celery_logging.configure(LogSettings.read())
    _settings = WorkerSettings.read()
    app = create_worker_app(_settings, StorageSettings.read(), partial(load, _settings))
except SettingInvalid as error:
    raise SystemExit(error.message) from error
