"""The generation workers' fork server: `python -m workers.preload LISTENER`, started by `tokenpost up`."""

import importlib
import sys

from storage.process.garbage_collection import without_collection

if __name__ == "__main__":
    with without_collection():
        # Imported here, so that no collection runs while torch and Celery are imported: that takes a fifth longer.
        _service = importlib.import_module("workers.fork_service")
    _service.serve(int(sys.argv[1]))
