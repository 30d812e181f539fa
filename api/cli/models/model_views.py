"""Models as `tokenpost models` shows them: what workers serve, joined with what lies on this machine."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from api.cli.models.local_models import LocalModel
from storage.fleet.manifests import ModelRow
from storage.fleet.workers import LoadFailure
from storage.model_manifest import ModelDescription, ModelManifest, ModelStatus


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its state in the platform, and its files on this machine.

    status:          as in the API; None where no worker ever served it
    origin:          where the files come from; None where they are not on this machine
    size_bytes:      of the files
    converted_bytes: of what workers made of a GGUF file
    runs:            `native`, `torch` or `refused`; None where it was not examined
    runs_reason:     why it is refused, or why it was not examined
    memory_bytes:    of a worker that serves it
    """

    id: str
    status: str | None = None
    status_reason: str | None = None
    context_length: int | None = None
    capabilities: dict[str, bool] = {}
    created_at: datetime | None = None
    origin: str | None = None
    source: str | None = None
    size_bytes: int | None = None
    converted_bytes: int | None = None
    licence: str | None = None
    architecture: str | None = None
    num_parameters: int | None = None
    runs: str | None = None
    runs_reason: str | None = None
    memory_bytes: int | None = None


class ServedModels(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says of models."""

    rows: Sequence[ModelRow] = ()
    manifest_by_model: Mapping[str, ModelManifest] = {}
    failures: Mapping[str, LoadFailure] = {}


def views_of(
    served: ServedModels, local: Sequence[LocalModel], descriptions: Mapping[str, ModelDescription | str]
) -> list[ModelView]:
    """Every model by name; one that is served under its own name and lies here is one line.

    descriptions: by the models' names; a text says why there is none
    """
    local_by_name = {model.name: model for model in local}
    row_by_name = {row.model: row for row in served.rows}
    names = sorted({*local_by_name, *row_by_name, *_shown_failures(served, local_by_name)})
    views = []
    for name in names:
        view = _with_row(ModelView(id=name), row_by_name.get(name), served)
        if name in local_by_name:
            view = _with_files(view, local_by_name[name])
            view = _with_description(view, descriptions.get(name))
        views.append(view)
    return views


def _shown_failures(served: ServedModels, local: Collection[str]) -> set[str]:
    return {model for model, failure in served.failures.items() if failure.is_recent or model in local}


def _with_row(view: ModelView, row: ModelRow | None, served: ServedModels) -> ModelView:
    failure = served.failures.get(view.id)
    if failure is not None and (row is None or row.status is ModelStatus.OFFLINE):
        view = msgspec.structs.replace(view, status=ModelStatus.FAILED, status_reason=failure.reason)
    elif row is not None:
        view = msgspec.structs.replace(view, status=row.status)
    if row is None:
        return view
    manifest = served.manifest_by_model[row.model]
    return msgspec.structs.replace(
        view,
        context_length=row.context_length or manifest.context_length,
        capabilities=manifest.capabilities,
        created_at=row.created_at,
    )


def _with_files(view: ModelView, model: LocalModel) -> ModelView:
    return msgspec.structs.replace(
        view,
        origin=model.origin,
        source=str(model.source),
        size_bytes=model.size_bytes,
        converted_bytes=model.total_bytes - model.size_bytes,
        licence=model.licence,
    )


def _with_description(view: ModelView, description: ModelDescription | str | None) -> ModelView:
    if description is None or isinstance(description, str):
        return msgspec.structs.replace(view, runs_reason=description)
    return msgspec.structs.replace(
        view,
        context_length=view.context_length or description.context_length,
        licence=view.licence or description.licence,
        architecture=description.architecture,
        num_parameters=description.num_parameters,
        runs=description.runs,
        runs_reason=description.reason,
        memory_bytes=description.memory_bytes,
    )
