"""`python -m tests.drill`: every fault on every database, a table at the end, and 1 as exit status on any loss."""

import argparse
import random
import shutil
import sys
import time
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.drill.catalogue import FAULTS
from tests.drill.drill import Load, Report, platform_for, run_fault
from tests.drill.faults import Fault
from tests.drill.judge import Harm, Outcome
from tests.drill.stage import START_LIMIT_S, Stage
from tests.drill.witness import make_references
from tests.drill.work import FULL_LOAD

_console = Console(width=None if sys.stdout.isatty() else 200)
_NUM_TOKENS = 240


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--only", action="append", help="faults whose name holds this text; may be given again")
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault happens on each database")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is asked for")
    parser.add_argument("--keep", type=Path, help="a folder for ledgers and logs of faults that were not good")
    parser.add_argument("--list", action="store_true", help="show the faults' names")
    options = parser.parse_args()
    wanted = [fault for fault in FAULTS if not options.only or any(text in fault.name for text in options.only)]
    if options.list:
        for fault in wanted:
            _console.print(fault.name, f"({', '.join(fault.databases)})", highlight=False)
        return 0
    reports: list[Report] = []
    is_whole = True
    try:
        _run(wanted, options.database or ["sqlite", "postgresql"], options, reports)
    except KeyboardInterrupt:
        _console.print("interrupted: the table is not whole")
        is_whole = False
    _console.print(_table(reports))
    for report in reports:
        for violation in report.violations[:12]:
            _console.print(f"{report.fault}, {report.database}: {violation.harm}: {violation.job}: {violation.what}")
        if report.error:
            _console.print(f"{report.fault}, {report.database}: {report.error}")
    return 0 if is_whole and reports and all(report.is_whole for report in reports) else 1


def _run(wanted: list[Fault], databases: list[str], options: argparse.Namespace, reports: list[Report]) -> None:
    """Faults with the same ground share a platform."""
    references: dict[str, Outcome] = {}
    for database in databases:
        here = [fault for fault in wanted if database in fault.databases]
        for _, faults in groupby(sorted(here, key=lambda fault: fault.ground), key=lambda fault: fault.ground):
            together = list(faults)
            turns = [(fault, number) for number in range(options.rounds) for fault in together]
            while turns:
                fault = turns[0][0]
                try:
                    with platform_for(fault, database) as stage:
                        references = references or make_references(stage, _NUM_TOKENS)
                        _run_on(stage, turns, reports, references, options)
                except AssertionError as error:
                    reports.append(Report(fault=fault.name, database=database, error=f"no platform: {error}"[:2000]))
                    _tell(reports[-1], 0.0)
                    turns = [turn for turn in turns if turn[0] is not fault]


def _run_on(
    stage: Stage,
    turns: list[tuple[Fault, int]],
    reports: list[Report],
    references: dict[str, Outcome],
    options: argparse.Namespace,
) -> None:
    """Take turns from the list as long as the platform is well."""
    load = Load(lines=FULL_LOAD, num_tokens=_NUM_TOKENS)
    while turns:
        fault, number = turns.pop(0)
        chance = random.Random(f"{options.seed}-{fault.name}-{stage.database_name}-{number}")
        began = time.monotonic()
        report = run_fault(stage, fault, references=references, load=load, chance=chance, number=number)
        reports.append(report)
        _tell(report, time.monotonic() - began)
        if options.keep and report.verdict != "good":
            _keep(stage, report, options.keep / f"{fault.name.replace(' ', '-')}-{stage.database_name}-{number}")
        # What a broken fault left behind must not be blamed on the next one.
        if report.error or not _is_well(stage, fault):
            return


def _keep(stage: Stage, report: Report, place: Path) -> None:
    """Copy ledgers and logs. Not the database: to close a SQLite file past SQLite drops this process' locks on it."""
    ignored = shutil.ignore_patterns("*.sock", "lock", "*.db*", "appendonlydir")
    shutil.copytree(stage.folder, place, ignore=ignored, dirs_exist_ok=True)
    lines = [f"{one.harm}: {one.job}: {one.what}" for one in report.violations] + [report.error]
    (place / "report.txt").write_text("\n".join(lines))


def _is_well(stage: Stage, fault: Fault) -> bool:
    try:
        stage.wait_ready(fault.replicas)
    except AssertionError:
        _console.print(f"{fault.name}: the platform did not come back within {START_LIMIT_S:.0f} s")
        return False
    return True


def _tell(report: Report, took_s: float) -> None:
    _console.print(
        f"{report.verdict:<7} {report.fault}, {report.database}: {report.num_jobs} jobs, "
        f"{len(report.violations)} breaches, recovery {_seconds(report.recovery_s)} ({took_s:.0f} s)",
        highlight=False,
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(reports: list[Report]) -> Table:
    table = Table(title="fault drill")
    for heading in ("fault", "database"):
        table.add_column(heading, no_wrap=True)
    for heading in ("jobs", "cuts", "lost", "duplicated", "changed", "recovery s", "target"):
        table.add_column(heading, justify="right")
    for heading in ("creates while away", "note", "verdict"):
        table.add_column(heading)
    for report in reports:
        table.add_row(
            report.fault,
            report.database,
            str(report.num_jobs),
            str(report.num_cuts),
            *(str(report.count(harm)) for harm in (Harm.LOST, Harm.DOUBLED, Harm.CHANGED)),
            _seconds(report.recovery_s),
            _seconds(report.target_s),
            str(report.creates or "-"),
            report.note,
            report.verdict,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
