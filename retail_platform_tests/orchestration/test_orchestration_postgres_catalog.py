"""The whole path with the catalog in PostgreSQL: one setting, and nothing else changes."""

from pathlib import Path
from uuid import uuid4

import pytest

from retail_platform.orchestration.runner import prepare_home
from retail_platform.sources.simulator import SimulationParameters, write_simulation
from retail_platform_tests.postgres import PostgresServer
from retail_platform_tests.simulated_retailer import Retailer, small_settings


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_server: PostgresServer) -> Retailer:
    database = f"retailer_{uuid4().hex[:8]}"
    settings = small_settings(tmp_path / "home").model_copy(update={"catalog": postgres_server.new_database(database)})
    prepare_home(settings)
    write_simulation(SimulationParameters(stores=2, items=5, days=120), settings.landing, settings.home / "truth")
    return Retailer(settings)


def test_landing_files_become_forecasts_and_a_second_run_changes_no_row_count(on_postgres: Retailer) -> None:
    on_postgres.bring_up_to_date()
    counts = on_postgres.counts()

    assert counts["forecast.demand"] == 28 * counts["forecast.inventory_requirements"] > 0
    assert counts["raw.pos_sales"] == counts["clean.sales"] + counts["quarantine.rejected_rows"]
    assert not on_postgres.settings.catalog_file.exists()
    assert len(on_postgres.bring_up_to_date()) == 1
    assert on_postgres.counts() == counts
