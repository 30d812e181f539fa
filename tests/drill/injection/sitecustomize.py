"""Runs first in a part whose drill asks for it: sets its clocks wrong, or hangs its engine while a file is there."""

import os
import sys
import threading
import time
from pathlib import Path


def _shift_clock(seconds: float) -> None:
    # In C, so that every module that has taken its function from `time` gets the wrong time too.
    import time_machine  # noqa: PLC0415 - only here, in processes with a wrong clock

    time_machine.travel(time.time() + seconds, tick=True).start()


def _hang_while(path: Path) -> None:
    """Make the engine's next steps wait as long as the file is there."""

    def wait_for_engine() -> None:
        while (module := sys.modules.get("workers.engine.engine")) is None or not hasattr(module, "Engine"):
            time.sleep(0.1)
        step = module.Engine.step

        def hanging_step(self: object) -> object:
            while path.exists():
                time.sleep(0.02)
            return step(self)

        module.Engine.step = hanging_step

    threading.Thread(target=wait_for_engine, daemon=True).start()


if shift := os.environ.get("DRILL_CLOCK_SHIFT_S"):
    _shift_clock(float(shift))
if hang := os.environ.get("DRILL_HANG_FILE"):
    _hang_while(Path(hang))
