"""The generation worker's entry point: `celery -A workers.gpu worker`, settings from TOKENPOST_*."""

from dataclasses import replace
from functools import partial

from storage.errors import SettingInvalid
from storage.process.garbage_collection import spare_the_collector
from storage.process.logging_setup import LogSettings
from storage.settings import StorageSettings
from workers.broker import celery_logging
from workers.engine.engine import Engine
from workers.generation.engine_thread import Loaded, TextTools
from workers.generation.worker_app import create_worker_app
from workers.model import load as model
from workers.model.progress import write_to
from workers.model.resources.memory_options import LoadLimits
from workers.settings import WorkerSettings

_MIB = 1 << 20


def load(settings: WorkerSettings) -> Loaded:
    """The engine of the model that the settings name."""
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


try:
    celery_logging.configure(LogSettings.read())
    _settings = WorkerSettings.read()
    app = create_worker_app(_settings, StorageSettings.read(), partial(load, _settings))
except SettingInvalid as error:
    raise SystemExit(error.message) from error
