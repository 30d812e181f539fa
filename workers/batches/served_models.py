"""Models as batches need them: which exist, how many of a batch's lines may be jobs at once, and their prompt tools."""

from collections import OrderedDict

from msgspec import structs

from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import WorkerStatus
from storage.errors import ModelNotFound
from storage.fleet import manifests, workers
from storage.fleet.manifests import ModelRow
from storage.model_manifest import GenerationDefaults
from workers.batches.batch_services import BatchServices

# Lines that are jobs at once, for each place of the model's workers: enough that no place is empty until the next
# lines have become jobs, and few beside the queues of other callers.
_LINES_PER_PLACE = 4
_MIN_LINES = 64
# Tokenizers of large vocabularies take tens of megabytes.
_MAX_TOOLS = 8


class BatchModels:
    """A snapshot of models and workers, and a cache of prompt tools."""

    def __init__(self, services: BatchServices) -> None:
        self._services = services
        self._rows: dict[str, ModelRow] = {}
        self._slots: dict[str, int] = {}
        self._starting: frozenset[str] = frozenset()
        self._tools: OrderedDict[str, PromptTools] = OrderedDict()

    def refresh(self) -> None:
        """Take a new snapshot."""
        lease_s = self._services.settings.lease_s
        rows = self._services.read(lambda c: manifests.list_models(c, lease_s))
        alive = self._services.read(lambda c: workers.list_alive(c, lease_s))
        self._rows = {row.model: row for row in rows}
        self._starting = frozenset(worker.model for worker in alive)
        self._slots = {}
        for worker in alive:
            if worker.status is WorkerStatus.READY:
                self._slots[worker.model] = self._slots.get(worker.model, 0) + worker.slots

    def is_known(self, model: str) -> bool:
        """Whether a worker serves the model, has served it, or loads it now."""
        return model in self._rows or model in self._starting

    def window_of(self, model: str) -> int:
        """How many lines of all batches may be jobs of the model at once; none while no worker serves it."""
        slots = self._slots.get(model, 0)
        return max(_MIN_LINES, slots * _LINES_PER_PLACE) if slots else 0

    def tools_of(self, model: str) -> PromptTools:
        """The model's tokenizer and template for the smallest context of its ready workers; raises ModelNotFound."""
        row = self._rows.get(model)
        if row is None:
            raise ModelNotFound(f"The model '{model}' does not exist or you do not have access to it.", param="model")
        tools = self._tools.get(row.manifest_digest)
        if tools is None:
            tools = self._tools[row.manifest_digest] = self._build(model)
            if len(self._tools) > _MAX_TOOLS:
                self._tools.popitem(last=False)
        self._tools.move_to_end(row.manifest_digest)
        length = row.context_length
        return tools if length is None or length == tools.context_length else tools.limited_to(length)

    def _build(self, model: str) -> PromptTools:
        settings = self._services.settings
        manifest = self._services.read(lambda c: manifests.get_manifest(c, model))
        if settings.generation_defaults == "none":
            manifest = structs.replace(manifest, generation_defaults=GenerationDefaults())
        return PromptTools(manifest, allows_special_tokens=settings.allow_special_tokens)
