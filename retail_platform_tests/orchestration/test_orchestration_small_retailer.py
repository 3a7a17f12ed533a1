"""The whole way on a small simulated retailer: what stands in the lake once it is up to date, and stays there."""

import hashlib
import json
import stat
from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest

from retail_platform.contracts import FEEDS, TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.shards import shard_names, shard_of
from retail_platform.monitoring.accounting import identity_holds, row_identity
from retail_platform.orchestration.runner import RunFailed, materialize
from retail_platform_tests.simulated_retailer import SIMULATION, Retailer

SERIES = ["store_id", "item_id"]


def rows_by_file(retailer: Retailer, table: str, feed: str) -> pl.DataFrame:
    column = "source_file_id" if table.startswith("clean.") else "file_id"
    where = f"WHERE feed = '{feed}'" if table.startswith("quarantine.") else f"WHERE {column} IS NOT NULL"
    return retailer.lake.query(f"SELECT {column} AS file_id, count(*) AS rows FROM {table} {where} GROUP BY ALL")


def test_every_series_has_a_forecast_for_every_day_of_the_horizon(finished: Retailer) -> None:
    forecast = finished.lake.read("forecast.demand")
    panel = finished.lake.query("SELECT DISTINCT store_id, item_id FROM features.demand WHERE units IS NOT NULL")
    horizon = finished.settings.forecast.horizon_days
    days = forecast.group_by(SERIES).agg(pl.col("horizon").sort(), pl.col("date").min(), last=pl.col("date").max())
    assert days.select(SERIES).sort(SERIES).equals(panel.sort(SERIES))
    assert panel.height > 30
    assert all(horizons == list(range(1, horizon + 1)) for horizons in days["horizon"].to_list())
    assert set(days["date"]) == {SIMULATION.last_date + timedelta(days=1)}
    assert set(days["last"]) == {SIMULATION.last_date + timedelta(days=horizon)}


def test_forecasts_are_whole_with_ordered_quantiles(finished: Retailer) -> None:
    forecast = finished.lake.read("forecast.demand")
    assert forecast.null_count().sum_horizontal().item() == 0
    assert forecast.filter(
        pl.any_horizontal(pl.col(low) > pl.col(high) for low, high in pairwise(QUANTILES))
    ).is_empty()
    assert forecast["mean"].min() >= 0  # type: ignore[operator]
    assert set(forecast["model"]) == {"lightgbm"}


@pytest.mark.parametrize("feed", FEEDS)
def test_every_row_of_every_file_is_clean_rejected_or_duplicate(finished: Retailer, feed: str) -> None:
    tables = (f"raw.{feed}", FEEDS[feed].clean_table, "quarantine.rejected_rows", "quarantine.duplicate_rows")
    identity = row_identity(*(rows_by_file(finished, table, feed) for table in tables))
    ledger = finished.lake.query("SELECT file_id, rows FROM raw.ingested_files WHERE feed = ?", [feed])
    assert identity_holds(identity)
    assert dict(identity.select("file_id", "arrived").iter_rows()) == dict(ledger.iter_rows())
    assert identity["arrived"].sum() > 0


def test_the_model_of_the_registry_lies_in_its_folder_with_its_hashes(finished: Retailer) -> None:
    (row,) = finished.lake.read("model.registry").to_dicts()
    folder = finished.settings.models / row["folder"]
    manifest_bytes = (folder / "manifest.json").read_bytes()
    manifest = json.loads(manifest_bytes)
    assert row["stage"] == "champion"
    assert row["wape"] < row["naive_wape"]
    assert hashlib.sha256(manifest_bytes).hexdigest() == row["manifest_sha256"]
    assert len(manifest["files"]) > 1
    for name, facts in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"]
    assert manifest["training_window"]["last_day"] == str(SIMULATION.last_date)
    assert set(finished.lake.read("forecast.demand")["model_version"]) == {row["model_version"]}


def test_forecasts_add_up_at_every_level_of_the_hierarchy(finished: Retailer) -> None:
    nodes = finished.lake.query(
        "SELECT level, date, sum(mean) AS units FROM forecast.nodes GROUP BY ALL ORDER BY level, date"
    )
    days = finished.lake.query("SELECT date, sum(mean) AS units FROM forecast.demand GROUP BY date ORDER BY date")
    assert {"total", "category"} <= set(nodes["level"])
    for (level,), own in nodes.group_by("level"):
        assert own["date"].equals(days["date"]), level
        assert ((own["units"] - days["units"]).abs() <= 1e-6 * days["units"]).all(), level


def test_every_series_has_an_order_proposal_that_says_its_stock_is_simulated(finished: Retailer) -> None:
    orders = finished.lake.read("forecast.inventory_requirements")
    series = finished.lake.query("SELECT DISTINCT store_id, item_id FROM forecast.demand")
    assert orders.select(SERIES).sort(SERIES).equals(series.sort(SERIES))
    assert orders["stock_is_simulated"].all()
    assert orders["order_quantity"].null_count() == 0
    assert orders.filter(pl.col("order_quantity") % pl.col("case_pack") != 0).is_empty()


def test_drift_is_measured_and_reported(finished: Retailer) -> None:
    drift = finished.lake.read("monitoring.data_drift")
    assert "*" in set(drift["column_name"])
    assert drift["run_id"].n_unique() == 1
    page = (finished.settings.reports / "data_drift.html").read_text(encoding="utf-8")
    assert "<html" in page


def test_every_contract_holds_for_what_is_stored(finished: Retailer) -> None:
    for name, table in TABLES.items():
        table.validate(finished.lake.read(name))


def test_customer_ids_stay_in_the_raw_table(finished: Retailer) -> None:
    customers = finished.lake.query("SELECT DISTINCT customer_id FROM raw.pos_sales WHERE customer_id IS NOT NULL")
    ids = set(customers["customer_id"])
    assert len(ids) > 10
    clean = finished.lake.read("clean.sales")
    assert clean["customer_pseudonym"].n_unique() - 1 == len(ids)
    for name in TABLES:
        if not name.startswith("raw."):
            frame = finished.lake.read(name)
            texts = frame.select(pl.col(pl.String))
            assert not {column for column in texts.columns if ids & set(texts[column])}, name
    marks = [customer.encode() for customer in ids]
    for file in finished.settings.lake_data.rglob("*.parquet"):
        if file.relative_to(finished.settings.lake_data).parts[0] != "raw":
            content = file.read_bytes()
            assert not [mark for mark in marks if mark in content], file


def test_the_key_of_the_pseudonyms_is_for_its_owner_alone(finished: Retailer) -> None:
    key = finished.settings.home / "customer.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not list(finished.settings.lake_data.rglob("customer.key"))


def test_bringing_up_to_date_again_changes_nothing_and_runs_nothing_but_the_look(retailer: Retailer) -> None:
    before, snapshot = retailer.counts(), retailer.lake.snapshot_id()
    steps = retailer.bring_up_to_date()
    assert [step.name for step in steps] == ["take in landing files"]
    assert retailer.counts() == before
    assert retailer.lake.snapshot_id() == snapshot


def test_cleaning_one_day_again_keeps_every_row(retailer: Retailer) -> None:
    before, day = retailer.lake.read("clean.sales"), SIMULATION.last_date - timedelta(days=40)
    materialize(retailer.lake, 'key:"clean/sales"', (day, day), None, lambda _: None)
    after = retailer.lake.read("clean.sales")
    grain = TABLES["clean.sales"].grain
    assert before.filter(pl.col("business_date") == day).height > 0
    assert after.sort(grain).equals(before.sort(grain))
    # The days cleaned again are newer than the panel, which stays as it was when it is refreshed.
    panel = retailer.lake.read("features.demand")
    materialize(retailer.lake, 'key:"features/demand"', None, None, lambda _: None)
    assert retailer.lake.read("features.demand").sort(*SERIES, "date").equals(panel.sort(*SERIES, "date"))


@pytest.mark.parametrize("victim", ["manifest.json", "calibrator.json"])
def test_a_model_folder_that_was_tampered_with_fails_clearly_and_leaves_the_last_forecast(
    retailer: Retailer, victim: str
) -> None:
    (row,) = retailer.lake.read("model.registry").to_dicts()
    file = retailer.settings.models / row["folder"] / victim
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    before = retailer.lake.read("forecast.demand")
    with pytest.raises(RunFailed, match=r"forecast\.demand: .*" + row["model_version"]) as failed:
        materialize(retailer.lake, 'key:"forecast/demand"', None, None, lambda _: None)
    assert "restore the folder" in str(failed.value)
    assert retailer.lake.read("forecast.demand").equals(before)


def test_two_shards_forecast_the_same_series_as_one_and_none_twice(retailer: Retailer) -> None:
    whole = retailer.lake.read("forecast.demand")
    sharded = retailer.with_settings(forecast=retailer.settings.forecast.model_copy(update={"shards": 2}))
    names = shard_names(2)
    sharded.bring_up_to_date()
    for table in ("features.demand", "forecast.demand", "forecast.inventory_requirements"):
        rows = sharded.lake.read(table)
        assert sorted(set(rows["shard"])) == names, table
        assert rows.select(pl.struct(TABLES[table].grain).is_duplicated().any()).item() is False
    stores = sharded.lake.read("forecast.demand").select("shard", *SERIES).unique()
    assert stores.select(SERIES).sort(SERIES).equals(whole.select(SERIES).unique().sort(SERIES))
    assert dict(stores.select("store_id", "shard").unique().iter_rows()) == shard_of(stores["store_id"].unique(), 2)
    assert sorted(sharded.lake.read("model.registry").filter(pl.col("shard") != "all")["shard"]) == names
    assert [step.name for step in sharded.bring_up_to_date()] == ["take in landing files"]


def test_rows_of_another_cut_into_shards_give_way(retailer: Retailer) -> None:
    stores = retailer.lake.read("clean.stores")["store_id"]
    for shards in (3, 2):
        cut = retailer.with_settings(forecast=retailer.settings.forecast.model_copy(update={"shards": shards}))
        filled = sorted(set(shard_of(stores, shards).values()))
        for shard in filled:
            materialize(cut.lake, 'key:"features/demand"', None, shard, lambda _: None)
        rows = cut.lake.read("features.demand")
        assert sorted(set(rows["shard"])) == filled
        assert rows.select(pl.struct(*SERIES, "date").is_duplicated().any()).item() is False


def test_a_shard_without_stores_is_empty_and_no_failure(retailer: Retailer) -> None:
    sharded = retailer.with_settings(forecast=retailer.settings.forecast.model_copy(update={"shards": 3}))
    stores = retailer.lake.read("clean.stores")["store_id"]
    (empty, *_) = sorted(set(shard_names(3)) - set(shard_of(stores, 3).values()))
    selection = "group:features or group:model or group:forecast"
    materialize(sharded.lake, selection, None, empty, lambda _: None)
    assert sharded.lake.read("features.demand").filter(shard=empty).is_empty()
    assert sharded.lake.read("forecast.demand").filter(shard=empty).is_empty()


def test_materializations_say_what_they_are_made_of(finished: Retailer) -> None:
    for table in ("raw.pos_sales", "clean.sales", "features.demand", "model.registry", "forecast.demand"):
        facts = finished.metadata(table)
        assert "lake_snapshot" in facts, table
        assert {"dagster/row_count", "dagster/partition_row_count"} & set(facts), table
    assert finished.check_passed("forecast.demand", "published_model_beats_naive")
    assert finished.check_passed("forecast.demand", "horizon_complete")
    assert finished.check_passed("model.registry", "beats_seasonal_naive")
