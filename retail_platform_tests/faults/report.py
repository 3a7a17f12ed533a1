"""docs/faults.md: what was tried, how often, and what came of it."""

import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from retail_platform_tests.faults.ground import Catalog, Outcome, Scenario, Theme
from retail_platform_tests.hostile_files import HOSTILE_FILES

LIBRARIES = ("duckdb", "duckdb-extension-ducklake", "dagster", "polars", "pyarrow", "psycopg", "filelock")

INTRODUCTION = """\
# Faults

Acquisition and storage lose nothing, double nothing and survive what happens to machines: this page is the record of
trying to prove that wrong. Every fault in it was made on purpose, with real processes, real kills, real full disks and a
real PostgreSQL server, and what the lake held afterwards was compared with what its writers had been told.

**The law.** What was acknowledged is there, exactly once. What was not acknowledged is there once, or not at all. No
part of a commit is ever there, and no reader sees one. Whoever comes next goes on without repair.

`make faults` plays all of it and writes this page; nothing on it is written by hand. Its scenarios are in
`retail_platform_tests/faults/`, and all but the hostile files run in `make test` as well, with few rounds, where the
hostile files have tests of their own."""

LIMITS = """\
## What this does not show

- One machine. Networks that split, clocks that differ between machines and faults of object storage were not made.
- A disk that lies: fsync is believed when it says that bytes are on the disk. The folder of the home itself is taken as
  given.
- PostgreSQL's own promises: its server was killed, and its disk was not.
- Random moments are drawn from a fixed seed, and where they meet the program differs from run to run. Rounds without a
  violation make one unlikely; they do not exclude it."""

OUTCOMES = {
    "refused": "nothing of the file is taken in; `raw.files_left_out` has the reason and the remedy",
    "rejected": "taken in as received; cleaning rejects the row, whole, with its reasons",
    "ingested": "taken in and read as it was meant",
    "ignored": "no landing file by its name or kind; said so",
    "empty": "in the ledger as a file without rows",
    "repeated": "recognised by its content as one that is there",
    "growing": "left until it is quiet",
    "unseen": "hidden by its name, as files are that are still being written",
}


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


def report(
    themes: Sequence[Theme], played: Sequence[Played], today: date, server: str, loads: tuple[float, float]
) -> str:
    """The whole page. `server` is the version of PostgreSQL, `loads` the load averages at the start and the end."""
    kills = _rounds([one for one in played if one.scenario.fault.startswith("kill -9")])
    failed = [one for one in played if not one.held]
    verdict = "every law held" if not failed else f"**{len(failed)} of {len(played)} scenarios failed**"
    parts = [
        INTRODUCTION,
        (
            f"**{today}: {_rounds(played):,} rounds, {kills:,} of them kills of a writer with signal 9, on catalogs in "
            f"SQLite and in PostgreSQL: {verdict}.**"
        ),
        _summary(themes, played),
        "\n".join(_facts(played, today, server, loads)),
        *(_violations(failed) if failed else []),
        *(_theme(theme, played) for theme in themes),
        _hostile_files(),
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _summary(themes: Sequence[Theme], played: Sequence[Played]) -> str:
    lines = ["| what happens | faults | rounds | result |", "| --- | ---: | ---: | --- |"]
    for theme in themes:
        ours = _of(theme, played)
        failed = sum(not one.held for one in ours)
        result = "held" if not failed else f"**{failed} of {len(ours)} failed**"
        anchor = theme.name.lower().replace(",", "").replace("'", "").replace(" ", "-")
        lines.append(f"| [{theme.name}](#{anchor}) | {len(theme.scenarios)} | {_rounds(ours):,} | {result} |")
    return "\n".join(lines)


def _theme(theme: Theme, played: Sequence[Played]) -> str:
    ours = _of(theme, played)
    faults = "\n".join(f"- *{scenario.fault}*: {scenario.method}." for scenario in theme.scenarios)
    rows = "\n".join(
        f"| {one.scenario.fault} | {one.catalog} | {one.outcome.rounds:,} | {one.result} | {_cell(one.outcome.seen)} |"
        for one in ours
    )
    table = f"| fault | catalog | rounds | result | seen |\n| --- | --- | ---: | --- | --- |\n{rows}"
    return f"## {theme.name}\n\n**Law.** {theme.law}\n\n{faults}\n\n{table}"


def _hostile_files() -> str:
    """What the table of hostile files expects, and so what happened where its law held."""
    counts = Counter(kind.expected.outcome for kind in HOSTILE_FILES)
    summary = [f"| {outcome} | {count} | {OUTCOMES[outcome]} |" for outcome, count in counts.most_common()]
    kinds = [f"| {_cell(kind.name)} | {_cell(kind.what)} | {_cell(str(kind.expected))} |" for kind in HOSTILE_FILES]
    return "\n".join(
        [
            f"### The {len(HOSTILE_FILES)} kinds of hostile files, and the outcome that each must have",
            "",
            *("| outcome | kinds | meaning |", "| --- | ---: | --- |", *summary),
            "",
            *(
                "| kind | what it is | outcome, rows that reach the raw table, words of the reason |",
                "| --- | --- | --- |",
            ),
            *kinds,
        ]
    )


def _violations(failed: Sequence[Played]) -> Iterator[str]:
    yield "## Violations"
    yield "\n".join(
        f"- {one.scenario.fault} ({one.catalog}): {_cell(broken)}"
        for one in failed
        for broken in one.outcome.violations or (one.missing,)
    )


def _of(theme: Theme, played: Sequence[Played]) -> list[Played]:
    return [one for one in played if one.scenario in theme.scenarios]


def _rounds(played: Sequence[Played]) -> int:
    return sum(one.outcome.rounds for one in played)


def _facts(played: Sequence[Played], today: date, server: str, loads: tuple[float, float]) -> list[str]:
    minutes = sum(one.seconds for one in played) / 60
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    ours = f"this platform {version('retail-platform')}, Python {platform.python_version()}"
    load = f"load average {loads[0]:.1f} at the start and {loads[1]:.1f} at the end, by this and other work"
    return [
        f"- Run: {today}, `make faults`, {minutes:.0f} minutes; {load}",
        f"- Machine: {_machine()}",
        f"- Versions: {ours}, {versions}, PostgreSQL {server}",
    ]


def _machine() -> str:
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
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
