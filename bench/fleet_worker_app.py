"""A generation worker with a fake engine whose model the API can serve: `celery -A bench.fleet_worker_app worker`."""

from dataclasses import replace

from msgspec import structs

from bench.byte_level import byte_level_bpe
from storage.process.logging_setup import LogSettings
from storage.settings import StorageSettings
from tests.fakes import MANIFEST, MAX_CONTEXT, FakeRunner
from tests.workers import harness
from tests.workers.fake_worker_app import FakeSettings
from workers.broker import celery_logging
from workers.generation.engine_thread import Loaded
from workers.generation.worker_app import create_worker_app
from workers.settings import WorkerSettings


def load() -> Loaded:
    """The fake engine, with a tokenizer of bytes: prompts are given as token ids."""
    loaded = harness.load(FakeRunner(FakeSettings.read().fake_step_s))
    tokenizer = byte_level_bpe(["fleet"], 300, []).to_str()
    return replace(loaded, manifest=structs.replace(MANIFEST, tokenizer_json=tokenizer, num_token_ids=MAX_CONTEXT))


celery_logging.configure(LogSettings.read())
app = create_worker_app(WorkerSettings.read(), StorageSettings.read(), load)
