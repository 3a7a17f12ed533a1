"""A small simulated retailer, brought up to date once for the whole session, and copies of it to change."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from filelock import FileLock

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.runner import Step, bring_up_to_date, instance_of, prepare_home
from retail_platform.settings import Settings, load_settings
from retail_platform.sources.landing import write_landing_file
from retail_platform.sources.simulator import SimulationParameters, write_simulation

# Dagster asks for the newest form of its records whenever it opens them and for each run, and alembic reads a hundred
# files to tell it. In a process of tests, which opens them hundreds of times, they are read once.
_read_scripts = ScriptDirectory.from_config
_scripts: dict[tuple[str | None, str | None], ScriptDirectory] = {}


def _scripts_of(config: Config) -> ScriptDirectory:
    key = config.config_file_name, config.get_main_option("script_location")
    if key not in _scripts:
        _scripts[key] = _read_scripts(config)
    return _scripts[key]


ScriptDirectory.from_config = _scripts_of  # type: ignore[method-assign,assignment]

FIRST_DAY = date(2017, 1, 1)
SIMULATION = SimulationParameters(stores=4, items=9, days=130, start_date=FIRST_DAY, receipts=True, customers=40)


SMALL = {
    "RETAIL_START_DATE": str(FIRST_DAY),
    "RETAIL_INTAKE__QUIET_SECONDS": "0",
    "RETAIL_LAKE__MEMORY_LIMIT": "1GB",
    "RETAIL_LAKE__LOCK_TIMEOUT_SECONDS": "60",
    "RETAIL_LAKE__THREADS": "1",
    "RETAIL_FORECAST__THREADS": "1",
    "RETAIL_FORECAST__TREES": "20",
    "RETAIL_FORECAST__OBJECTIVE": "tweedie",
    "RETAIL_FORECAST__LEAVES": "15",
    "RETAIL_DRIFT__SAMPLE_ROWS": "500",
}
"""Settings with which training takes a moment, as a process of its own is given them. On tables this small threads
cost more than they save, a quarter of all processor time."""


def small_settings(home: Path) -> Settings:
    return load_settings({**SMALL, "RETAIL_HOME": str(home)}, home.parent)


@dataclass(frozen=True)
class Retailer:
    """A home folder and its lake, with what tests ask of them."""

    settings: Settings

    @cached_property
    def lake(self) -> Lakehouse:
        return Lakehouse(self.settings)

    def with_settings(self, **changes: Any) -> "Retailer":
        return Retailer(self.settings.model_copy(update=changes))

    def copy_to(self, home: Path) -> "Retailer":
        """The same retailer in a home of its own, to be changed."""
        shutil.copytree(self.settings.home, home)
        return self.with_settings(home=home)

    def land(self, feed: str, name: str, rows: Sequence[Mapping[str, Any]] | pl.DataFrame) -> Path:
        """Put a file with these rows into the landing zone; values become text as they would in a CSV."""
        return write_landing_file(self.settings.landing, feed, name, pl.DataFrame(rows))

    def bring_up_to_date(self) -> list[Step]:
        return bring_up_to_date(self.lake, lambda _: None)

    def counts(self) -> dict[str, int]:
        """Rows of every table."""
        counted = [f"SELECT '{name}' AS name, count(*) AS rows FROM {name}" for name in sorted(self.lake.tables())]
        return dict(self.lake.query(" UNION ALL ".join(counted)).iter_rows())

    def metadata(self, table: str) -> dict[str, Any]:
        """What the newest materialization of a table says of itself."""
        with instance_of(self.settings) as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey(table.split(".")))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def check_passed(self, table: str, name: str) -> bool:
        """The outcome of the newest evaluation of a check."""
        key = dg.AssetCheckKey(dg.AssetKey(table.split(".")), name)
        with instance_of(self.settings) as instance:
            records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert records
        assert records[0].event is not None
        event = records[0].event.dagster_event
        assert event is not None
        return event.asset_check_evaluation_data.passed


_last_job: dict[str, dg.JobDefinition] = {}


def _job(retailer: Retailer) -> dg.JobDefinition:
    """All assets of a retailer; those of the last one are kept, since building them takes as long as a small run."""
    told = retailer.settings.model_dump_json()
    if told not in _last_job:
        _last_job.clear()
        _last_job[told] = build_definitions(retailer.settings, retailer.lake).resolve_implicit_global_asset_job_def()
    return _last_job[told]


def run_in_process(
    retailer: Retailer, instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey], tags: Mapping[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    """One run of these assets and their checks, as the daemon would launch it."""
    return _job(retailer).execute_in_process(
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=instance,
        asset_selection=list(keys),
        tags=dict(tags or {}),
        raise_on_error=False,
    )


@pytest.fixture(scope="session")
def opening_day(tmp_path_factory: pytest.TempPathFactory) -> Retailer:
    """A home with a landing zone, a lake and Dagster's records, and nothing in them. Tests copy it, since making the
    tables takes most of a second each time.
    """
    retailer = Retailer(small_settings(tmp_path_factory.mktemp("opening_day") / "home"))
    prepare_home(retailer.settings)
    # As in `finished`: the lake that tests will read keeps no connection open.
    Lakehouse(retailer.settings).prepare()
    with instance_of(retailer.settings):
        return retailer


@pytest.fixture
def without_a_lake(tmp_path: Path) -> Retailer:
    """A home with a landing zone and nothing else."""
    settings = small_settings(tmp_path / "home")
    prepare_home(settings)
    return Retailer(settings)


@pytest.fixture
def new_retailer(opening_day: Retailer, tmp_path: Path) -> Retailer:
    """A home with nothing in it yet."""
    return opening_day.copy_to(tmp_path / "home")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Retailer:
    """The simulated retailer from landing files to order proposals. Shared by all workers: tests only read it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    home, done = shared / "finished", shared / "finished.json"
    retailer = Retailer(small_settings(home))
    with FileLock(shared / "finished.lock"):
        if not done.exists():
            prepare_home(retailer.settings)
            write_simulation(SIMULATION, retailer.settings.landing, home / "truth")
            # Not the lake that tests will read: a connection that stays open keeps the catalog's log beside it, and a
            # copy of both that is made while they are merged lacks the last commits.
            steps = bring_up_to_date(Lakehouse(retailer.settings), lambda _: None)
            done.write_text(json.dumps([step.name for step in steps]), encoding="utf-8")
    return retailer


@pytest.fixture
def retailer(finished: Retailer, tmp_path: Path) -> Retailer:
    """A copy of the finished retailer that a test may change."""
    return finished.copy_to(tmp_path / "home")
