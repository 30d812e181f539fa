"""Status of each model: what its workers say, what `tokenpost up` expects, and what could not be loaded."""

import re
from collections.abc import Collection, Mapping, Sequence

from storage.fleet.manifests import ModelRow
from storage.fleet.workers import LoadFailure
from storage.model_manifest import ModelStatus

# An absolute path of two parts or more; its last part is kept. Not the path of a URL.
_QUOTED_PATH = re.compile(r"""(?<=['"`])[~/][^'"`\n]*/([^'"`/\n]+)(?=['"`])""")
_PATH = re.compile(r"""(?<![\w/:.~'"`])~?/(?:[^\s'"`:;,()/]+/)+([^\s'"`:;,()/]+)""")


class ModelAvailability:
    """Statuses of models, with the reasons of failed ones, as of the last snapshot."""

    def __init__(self, expected: Sequence[str]) -> None:
        """expected: models that should be served, known to a worker already or not"""
        self.expected = tuple(expected)
        self._failures: Mapping[str, LoadFailure] = {}
        # Expected models that were ready once: from then on their workers' status counts.
        self._were_ready: set[str] = set()

    def update(self, rows: Collection[ModelRow], failures: Mapping[str, LoadFailure]) -> None:
        """Take a new snapshot."""
        self._failures = failures
        self._were_ready |= {row.model for row in rows if row.status is ModelStatus.READY}

    def status_of(self, row: ModelRow) -> ModelStatus:
        """The status of a model that a worker served once: FAILED or LOADING rather than OFFLINE where that is known.

        An expected model is LOADING until its first worker of this process' life has registered.
        """
        if row.status is not ModelStatus.OFFLINE:
            return row.status
        if row.model in self._failures:
            return ModelStatus.FAILED
        is_awaited = row.model in self.expected and row.model not in self._were_ready
        return ModelStatus.LOADING if is_awaited else ModelStatus.OFFLINE

    def unserved(self, served: Collection[str]) -> dict[str, ModelStatus]:
        """Models that no worker ever served: the expected ones, and those that failed to load a short time ago."""
        failed = [model for model, failure in self._failures.items() if failure.is_recent]
        return {
            model: ModelStatus.FAILED if model in self._failures else ModelStatus.LOADING
            for model in (*self.expected, *failed)
            if model not in served
        }

    def failure_of(self, model: str) -> str | None:
        """Why the model could last not be loaded, for any caller; None where it could."""
        failure = self._failures.get(model)
        return None if failure is None else without_folders(failure.reason)


def without_folders(reason: str) -> str:
    """The reason with the last part of each absolute path: folders and users of the worker's machine are private."""
    return _PATH.sub(r"\1", _QUOTED_PATH.sub(r"\1", reason))
