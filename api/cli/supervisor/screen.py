"""Terminal output of `tokenpost up`: progress while it starts, the ready screen, and notes about events."""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from rich.console import Console
from rich.status import Status
from rich.text import Text

from api.cli.supervisor.processes import Serving
from api.cli.supervisor.ready_examples import Capabilities, example_for

_LABEL_WIDTH = 10
# Below the 2 s that a reader of the lines may rely on.
_PROGRESS_EVERY_S = 1.5


class Screen:
    """Output of one `tokenpost up`: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._last = ""
        self._last_elapsed_s = 0.0
        self._fetched = ""
        self._fetch_began = 0.0

    def working(self, text: str, *, detail: str = "", elapsed_s: float = 0.0) -> None:
        """Show the current activity.

        detail:    how far it is; where there is no terminal, a line with it is printed every 2 s
        elapsed_s: since the activity began
        """
        shown = " ... ".join(part for part in (text, detail) if part)
        if not self._console.is_terminal:
            if text != self._last or elapsed_s - self._last_elapsed_s >= _PROGRESS_EVERY_S:
                self._print(Text(f"  {shown} ..." if text != self._last else f"  {shown} ... {elapsed_s:.0f} s"))
                self._last_elapsed_s = elapsed_s
        else:
            shown = f"{shown} ... {elapsed_s:.0f} s" if elapsed_s >= 1 else f"{shown} ..."
            if self._status is None:
                self._status = Status("", console=self._console, spinner="dots" if self._is_unicode else "line")
                self._status.start()
            self._status.update(Text(shown))
        self._last = text

    def fetching(self, title: str, done_bytes: int, total_bytes: int) -> None:
        """Show how much has come of what is fetched; a total of 0 is not known."""
        if title != self._fetched:
            self._fetched, self._fetch_began = title, time.monotonic()
        detail = f"{done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB" if total_bytes else ""
        self.working(f"Fetching {title}", detail=detail, elapsed_s=time.monotonic() - self._fetch_began)

    def done(self, label: str, text: str) -> None:
        """Print a permanent line: a part of the platform is ready."""
        self._print(Text.assemble(("  " + label.ljust(_LABEL_WIDTH), "bold"), " ", text))

    def quiet(self) -> None:
        """Remove the spinner."""
        if self._status is not None:
            with suppress(OSError):
                self._status.stop()
            self._status = None

    def title(self, version: str) -> None:
        """Print the title line."""
        self._print(Text.assemble(("Tokenpost", "bold"), f" {version}\n"))

    def note(self, text: str, now: datetime) -> None:
        """Print a line about an event, with the time of day."""
        self._print(Text.assemble((now.astimezone().strftime("%H:%M:%S "), "dim"), text))

    def line(self, text: str) -> None:
        """Print one plain line."""
        self._print(Text(text))

    def ready(self, serving: Serving, models: Mapping[str, Capabilities], key: str, *, is_key_needed: bool) -> None:
        """Print the ready screen: address, a line about API keys, and two examples that work when pasted.

        models: what each served model can do, by name
        """
        self.quiet()
        self.line("")
        self.done("Address", serving.url)
        self.done("Key", key)
        self.done("Models", ", ".join(models))
        self.done("Logs", str(serving.location.home.logs))
        example = example_for(models)
        self._example("Try it:", example.curl(serving.url, is_key_needed=is_key_needed))
        python = example.python(serving.url, is_key_needed=is_key_needed)
        self._example("Or in Python, after pip install openai:", python)
        self._print(Text("\nCtrl-C stops everything.", style="dim"))

    @property
    def _is_unicode(self) -> bool:
        return self._console.encoding.lower().startswith("utf")

    def _example(self, heading: str, code: str) -> None:
        self._print(Text("\n" + heading, style="dim"))
        # Not indented: a Python prompt refuses an indented line.
        self._print(Text("\n" + code))

    def _print(self, text: Text) -> None:
        # A closed terminal must not prevent an orderly stop.
        with suppress(OSError):
            self._console.print(text, soft_wrap=True)
