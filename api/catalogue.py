"""Which models there are, whether they run, and the tools to write prompts for them."""

from dataclasses import dataclass
from datetime import UTC, datetime

from api.protocol.prompt import PromptTools
from api.refresh import Snapshot
from api.settings import ApiSettings
from storage import models
from storage.contract import ModelCard, ModelStatus
from storage.database import Database
from storage.errors import ModelNotFound, ModelUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """A model as callers see it, with what is needed to write its prompts."""

    model: str
    card_digest: str
    card: ModelCard
    tools: PromptTools
    status: ModelStatus
    created_at: int


Entries = dict[str, CatalogueEntry]


class Catalogue:
    """The models as they were a moment ago."""

    def __init__(self, settings: ApiSettings, database: Database) -> None:
        self._lease_s = settings.lease_s
        self._database = database
        self._known: Entries = {}
        self._entries = Snapshot(self._read, every_s=settings.refresh_s)

    async def start(self) -> None:
        """Read the models, then again on a beat."""
        await self._entries.start()

    async def stop(self) -> None:
        """Read models no more."""
        await self._entries.stop()

    @property
    def entries(self) -> Entries:
        """All models by name."""
        return self._entries.value

    async def get(self, model: str) -> CatalogueEntry:
        """The model's entry; ModelNotFound when no worker ever served it."""
        entry = self.entries.get(model) or (await self._entries.renew()).get(model)
        if entry is None:
            raise ModelNotFound(f"The model '{model[:100]}' does not exist.", param="model")
        return entry

    async def require_alive(self, entry: CatalogueEntry) -> None:
        """Raise ModelUnavailable when no worker of the model lives."""
        if entry.status is ModelStatus.OFFLINE:
            entry = await self.renewed(entry)
        if entry.status is ModelStatus.OFFLINE:
            raise ModelUnavailable(
                f"No worker of the model '{entry.model}' is alive at the moment. "
                "Try again soon, or submit the job in the background.",
                param="model",
            )

    async def renewed(self, entry: CatalogueEntry) -> CatalogueEntry:
        """The same model as it is now."""
        return (await self._entries.renew()).get(entry.model, entry)

    def _read(self) -> Entries:
        with self._database.connect() as connection:
            rows = models.list_models(connection, datetime.now(UTC), self._lease_s)
            entries: Entries = {}
            for row in rows:
                known = self._known.get(row.model)
                if known is None or known.card_digest != row.card_digest:
                    card = models.get_card(connection, row.model)
                    tools = PromptTools(card)
                else:
                    card, tools = known.card, known.tools
                entries[row.model] = CatalogueEntry(
                    model=row.model,
                    card_digest=row.card_digest,
                    card=card,
                    tools=tools,
                    status=row.status,
                    created_at=int(row.created_at.timestamp()),
                )
        self._known = entries
        return entries
