"""The garbage collector of a process that has loaded what it keeps: tried in a process of its own."""

import subprocess
import sys

_PROGRAM = """
import gc
from storage.process.garbage_collection import spare_the_collector
kept = [[] for _ in range(100_000)]
spare_the_collector()
# What was there before is looked at no more, what comes later is.
print(gc.get_freeze_count() > 100_000, any(one is kept[0] for one in gc.get_objects()), gc.get_threshold()[0])
lost = []
lost.append(lost)
del lost
print(gc.collect() > 0)
"""


def test_what_was_loaded_is_scanned_no_more_and_what_comes_later_is() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["True", "False", "20000", "True"]
