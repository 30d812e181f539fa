"""Windows: of each model, only so many lines of all batches are jobs at once, and ended ones make room for the next."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from storage.batches import batch_lines
from storage.batches.tables import Batch, BatchLine
from workers.batches.batch_services import BatchServices
from workers.batches.line_jobs import LineJobs
from workers.batches.served_models import BatchModels

# Lines that name no model become no jobs; so many are refused at once.
_NUM_WITHOUT_MODEL = 256


class Windows:
    """Fills the windows of all models."""

    def __init__(self, services: BatchServices, models: BatchModels, line_jobs: LineJobs) -> None:
        self._services = services
        self._models = models
        self._line_jobs = line_jobs

    def fill(self, batches: Sequence[Batch]) -> bool:
        """Make jobs of the next lines of these batches; whether there is room for more at once.

        batches: those in progress, in the order in which they have their turn; each of a model's batches gets an
                 equal share of its window
        """
        counts = self._services.read(lambda c: batch_lines.count_in_progress(c, [batch.id for batch in batches]))
        num_open: dict[str, int] = {}
        for (_, model), num in counts.items():
            num_open[model] = num_open.get(model, 0) + num
        has_more = False
        for model in dict.fromkeys(model for batch in batches for model in (*batch.models, "")):
            own = [batch for batch in batches if model in (*batch.models, "")]
            has_more |= self._fill_model(model, own, self._window_of(model) - num_open.get(model, 0))
        return has_more

    def _window_of(self, model: str) -> int:
        return self._models.window_of(model) if model else _NUM_WITHOUT_MODEL

    def _fill_model(self, model: str, batches: Sequence[Batch], room: int) -> bool:
        has_more = False
        for index, batch in enumerate(batches):
            share = -(-room // (len(batches) - index))
            if share <= 0:
                break
            lines = self._services.read(partial(_list_next, batch_id=batch.id, model=model, limit=share))
            if lines:
                num_read = self._line_jobs.submit(batch, lines)
                has_more |= num_read < len(lines) or not model
                room -= num_read
        return has_more


def _list_next(connection: Connection, *, batch_id: str, model: str, limit: int) -> list[BatchLine]:
    return batch_lines.list_next(connection, batch_id, model, limit)
