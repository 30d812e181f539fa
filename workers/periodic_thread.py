"""Periodic thread: calls a function at intervals, as the heartbeat and the sweeper need it."""

import threading
from collections.abc import Callable


class PeriodicThread:
    """Calls `work` every `period_s` until it is stopped; at once again where work is left."""

    def __init__(
        self, name: str, work: Callable[[], bool], *, period_s: float, on_error: Callable[[Exception], bool]
    ) -> None:
        """work:     returns whether work is left
        on_error: takes an error that `work` raised; returns whether to go on
        """
        self._work = work
        self._period_s = period_s
        self._on_error = on_error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with the first call at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Call no more; return when the current call has ended, or after the timeout."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            is_work_left = False
            try:
                is_work_left = self._work()
            except Exception as error:  # noqa: BLE001 - exception boundary of the thread: its owner decides
                if not self._on_error(error):
                    return
            self._stopping.wait(0 if is_work_left else self._period_s)
