"""docs/faults.md: what was tried, how often, and what came of it."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from retail_platform_tests.faults.ground import Catalog, Outcome, Scenario

LIBRARIES = ("duckdb", "duckdb-extension-ducklake", "dagster", "polars", "pyarrow", "psycopg", "filelock")

INTRODUCTION = """\
# Faults

Written by `make faults`; not by hand. Each row is a fault that was made on purpose, with real processes and real
kills, and held against one law: **what was acknowledged is there exactly once; what was not acknowledged is there
once or not at all; no part of a slice is ever there; a reader sees whole commits only; and the next writer goes on.**
A quick part of the same scenarios is in `make test`.
"""


@dataclass(frozen=True)
class Played:
    """A scenario that was played on a catalog, and how long it took; `missing` says what this machine lacks."""

    scenario: Scenario
    catalog: Catalog
    outcome: Outcome
    seconds: float
    missing: str = ""

    @property
    def held(self) -> bool:
        return not self.missing and not self.outcome.violations

    @property
    def result(self) -> str:
        if self.missing:
            return f"**not run**: {self.missing}"
        return "held" if self.held else f"**{len(self.outcome.violations)} violations**"


def report(played: Sequence[Played], today: date, server: str) -> str:
    """The whole page. `server` is the version of PostgreSQL."""
    rounds = sum(one.outcome.rounds for one in played)
    kills = sum(one.outcome.rounds for one in played if one.scenario.fault.startswith("kill -9"))
    failed = [one for one in played if not one.held]
    verdict = "every law held" if not failed else f"**{len(failed)} of {len(played)} scenarios failed**"
    lines = [
        INTRODUCTION,
        f"{rounds:,} rounds, {kills:,} of them kills with signal 9, on both catalogs: {verdict}.",
        "",
        *_facts(played, today, server),
        "",
        "| fault | method | catalog | rounds | result | seen |",
        "| --- | --- | --- | ---: | --- | --- |",
        *(
            f"| {one.scenario.fault} | {one.scenario.method} | {one.catalog} | {one.outcome.rounds:,} | {one.result} "
            f"| {_cell(one.outcome.seen)} |"
            for one in played
        ),
        "",
    ]
    if failed:
        lines += ["## Violations", ""]
        lines += [
            f"- {one.scenario.fault} ({one.catalog}): {_cell(broken)}"
            for one in failed
            for broken in one.outcome.violations
        ]
        lines.append("")
    return "\n".join(lines)


def _facts(played: Sequence[Played], today: date, server: str) -> list[str]:
    seconds = sum(one.seconds for one in played)
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    return [
        f"- Run: {today}, `make faults`, {seconds / 60:.0f} minutes",
        f"- Machine: {_machine()}",
        f"- Versions: Python {platform.python_version()}, {versions}, PostgreSQL {server}",
    ]


def _machine() -> str:
    import os

    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory = next(
        (int(line.split()[1]) / 1024**2 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB memory, {platform.system()} {platform.release().split('-')[0]}"


def _lines(file: str) -> list[str]:
    place = Path(file)
    return place.read_text(encoding="utf-8").splitlines() if place.is_file() else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
