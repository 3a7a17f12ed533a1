"""Taking in the landing zone: each content once, every file with an outcome, every difference told."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.ingestion import FILES_AT_ONCE, Ingestion, ingest_feed, waiting_files
from retail_platform.settings import FeedSettings, IntakeSettings, Settings
from retail_platform.sources.files import IntakeError

HEADER = "business_date,store_id,item_id,quantity\n"


@pytest.fixture
def lake(settings: Settings) -> Lakehouse:
    (settings.landing / "pos_sales").mkdir(parents=True)
    lake = Lakehouse(settings)
    lake.prepare()
    return lake


def land(lake: Lakehouse, name: str, *rows: str, header: str = HEADER) -> Path:
    file = lake.settings.landing / "pos_sales" / name
    file.write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return file


def row(store: object) -> str:
    return f"2017-03-01,{store},I1,2"


def ingest(lake: Lakehouse, run_id: str = "run") -> Ingestion:
    return ingest_feed(lake, "pos_sales", run_id)


def with_form(lake: Lakehouse, form: FeedSettings) -> Lakehouse:
    return Lakehouse(lake.settings.model_copy(update={"feeds": {"pos_sales": form}}))


def stores(lake: Lakehouse) -> Sequence[str]:
    return sorted(lake.read("raw.pos_sales", columns=["store_id"]).to_series())


def left_out(lake: Lakehouse) -> list[tuple[str, str]]:
    return lake.query("SELECT file_name, outcome FROM raw.files_left_out ORDER BY seen_at").rows()


def test_small_files_share_commits_and_each_has_its_ledger_row(lake: Lakehouse) -> None:
    count = FILES_AT_ONCE + 1
    for number in range(count):
        land(lake, f"{number:03d}.csv", row(number), row(number))
    before = lake.snapshot_id()
    result = ingest(lake)
    assert (len(result.ingested), result.rows) == (count, 2 * count)
    assert lake.snapshot_id() == result.snapshot_id == before + 2
    ledger = lake.read("raw.ingested_files")
    assert set(ledger.select("rows", "first_date", "status", "contract_version").iter_rows()) == {
        (2, date(2017, 3, 1), "ingested", "1.0")
    }
    stored = lake.query("SELECT file_id, count(*) AS n, max(row_number) AS last FROM raw.pos_sales GROUP BY ALL")
    assert dict.fromkeys(ledger["file_id"], (2, 2)) == {name: (n, last) for name, n, last in stored.iter_rows()}


def test_a_second_look_finds_everything_known_and_reads_no_file(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(lake, "a.csv", row("S1"))
    land(lake, "b.csv", row("S1"))
    first = ingest(lake)
    assert (first.ingested, len(first.repeated)) == (["a.csv"], 1)
    monkeypatch.setattr("retail_platform.orchestration.ingestion.copy_to_spool", None)
    second = ingest(lake)
    assert (second.known, second.repeated, second.ingested) == (["a.csv", "b.csv"], [], [])
    assert waiting_files(lake)["pos_sales"] == []


def test_content_that_changed_behind_the_same_name_size_and_time_is_seen(lake: Lakehouse) -> None:
    file = land(lake, "a.csv", row("S1"))
    os.utime(file, (1, 1))
    ingest(lake)
    land(lake, "a.csv", row("S2"))
    os.utime(file, (1, 1))
    assert ingest(lake).ingested == ["a.csv"]
    assert stores(lake) == ["S1", "S2"]


def test_a_renamed_copy_is_recognised_and_said_so_once(lake: Lakehouse) -> None:
    land(lake, "a.csv", row("S1"))
    ingest(lake)
    land(lake, "b.csv", row("S1"))
    assert ingest(lake).repeated == ["b.csv: the same content was taken in as a.csv"]
    ingest(lake)
    assert left_out(lake) == [("b.csv", "repeated")]
    assert stores(lake) == ["S1"]


def test_a_file_delivered_again_unchanged_is_said_so_once_and_waits_for_nobody(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = land(lake, "a.csv", row("S1"))
    ingest(lake)
    os.utime(file, (1, 1))
    assert [waiting.name for waiting in waiting_files(lake)["pos_sales"]] == ["a.csv"]
    assert ingest(lake).repeated == ["a.csv: the same content was taken in before under this name"]
    assert waiting_files(lake)["pos_sales"] == []
    monkeypatch.setattr("retail_platform.orchestration.ingestion.copy_to_spool", None)
    assert ingest(lake).known == ["a.csv"]
    assert left_out(lake) == [("a.csv", "repeated")]
    assert stores(lake) == ["S1"]


def test_a_return_to_earlier_content_is_said_to_have_no_effect(lake: Lakehouse) -> None:
    file = land(lake, "a.csv", row("S1"))
    for store, modified in (("S1", 1), ("S2", 2), ("S1", 3)):
        land(lake, "a.csv", row(store))
        os.utime(file, (modified, modified))
        result = ingest(lake)
    assert ["to go back to it, land it with a change" in words for words in result.repeated] == [True]
    assert stores(lake) == ["S1", "S2"]


def test_a_landing_zone_that_was_moved_is_known_without_a_note(lake: Lakehouse) -> None:
    file = land(lake, "a.csv", row("S1"))
    ingest(lake)
    moved = file.with_name("moved.csv")
    shutil.copy2(file, moved)
    moved.replace(file)
    assert ingest(lake).known == ["a.csv"]
    assert left_out(lake) == []


def test_a_refusal_is_noted_again_only_when_file_or_reason_change(lake: Lakehouse) -> None:
    file = land(lake, "a.csv", "S1", header="store_id\n")
    assert len(ingest(lake).broken) == len(ingest(lake).broken) == 1
    assert left_out(lake) == [("a.csv", "refused")]
    assert waiting_files(lake)["pos_sales"] == []
    file.write_text("item_id\nI1\n")
    assert len(waiting_files(lake)["pos_sales"]) == 1
    ingest(lake)
    assert left_out(lake) == [("a.csv", "refused")] * 2


def test_a_refused_file_is_taken_in_once_the_setting_is_mended(lake: Lakehouse) -> None:
    land(lake, "a.csv", row("S1"), header=HEADER.replace("store_id", "shop"))
    (message,) = ingest(lake).broken
    assert 'such as store_id = "shop"' not in message, "these names are not alike"
    assert ingest(with_form(lake, FeedSettings(columns={"store_id": "shop"}))).ingested == ["a.csv"]


def test_broken_files_hold_nobody_back(lake: Lakehouse) -> None:
    land(lake, "a.csv", row("S1"))
    land(lake, "b.csv", "x", header="x\n")
    land(lake, "c.csv", row("S2"))
    result = ingest(lake)
    assert (result.ingested, len(result.broken)) == (["a.csv", "c.csv"], 1)
    assert stores(lake) == ["S1", "S2"]


def test_two_at_the_same_time_take_each_content_in_once(lake: Lakehouse) -> None:
    for number in range(6):
        land(lake, f"{number}.csv", row(number % 3))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda run: ingest(Lakehouse(lake.settings), run), ["one", "two"]))
    assert sum(result.rows for result in results) == 3
    assert stores(lake) == ["0", "1", "2"]


def test_nothing_is_left_in_the_spool_and_locks_do_not_accumulate(lake: Lakehouse) -> None:
    spool = lake.settings.home / "spool" / "landing-pos_sales"
    spool.mkdir(parents=True)
    (spool / "of-a-killed-process.landed").write_text("x")
    for name in "ab":
        land(lake, f"{name}.csv", row(name))
    land(lake, "c.csv", "x", header="x\n")
    ingest(lake)
    assert not spool.exists()
    locks = {file.name for file in (lake.settings.home / "locks").iterdir()}
    assert {name for name in locks if "landing" in name or "content" in name} == {"landing-pos_sales.lock"}


def test_want_of_a_place_for_copies_is_no_fault_of_the_files(lake: Lakehouse) -> None:
    land(lake, "a.csv", row("S1"))
    spool = lake.settings.home / "spool"
    spool.write_text("in the way")
    with pytest.raises(IntakeError, match="landing files cannot be copied to"):
        ingest(lake)
    assert len(waiting_files(lake)["pos_sales"]) == 1
    spool.unlink()
    assert ingest(lake).ingested == ["a.csv"]


def test_a_file_still_written_to_is_left_until_it_is_quiet(lake: Lakehouse) -> None:
    patient = Lakehouse(lake.settings.model_copy(update={"intake": IntakeSettings(quiet_seconds=0.2)}))
    land(lake, "done.csv", row("S1"))
    with ThreadPoolExecutor(1) as pool:
        file = land(lake, "grows.csv")
        going_on = True

        def write() -> None:
            with file.open("a") as target:
                while going_on:
                    target.write(row("S2") + "\n")
                    target.flush()

        writing = pool.submit(write)
        result = ingest(patient)
        going_on = False
        writing.result()
    assert (result.ingested, len(result.growing)) == (["done.csv"], 1)
    assert [file.name for file in waiting_files(lake)["pos_sales"]] == ["grows.csv"]
    assert ingest(patient).ingested == ["grows.csv"]


def test_a_change_of_columns_is_noted_and_raises_an_alert_where_somebody_must_look(lake: Lakehouse) -> None:
    land(lake, "a.csv", row("S1") + ",5.98", header=HEADER.strip() + ",sales_amount\n")
    land(lake, "b.csv", row("S2") + ",5.98,9", header=HEADER.strip() + ",sales_amt,till\n")
    result = ingest(lake)
    assert [note.split(":")[0] for note in result.notes] == ["b.csv", "b.csv"]
    alerts = lake.read("monitoring.alerts")
    assert alerts.select("severity", "subject").rows() == [("warning", "raw.pos_sales")]
    assert alerts["message"][0].startswith(
        "landing file pos_sales/b.csv: column sales_amount, which a.csv had, is gone"
    )
    land(lake, "c.csv", row("S3") + ",5.98,9", header=HEADER.strip() + ",sales_amt,till\n")
    ingest(lake)
    assert lake.read("monitoring.alerts").height == 1, "the change is told once"


def test_columns_admitted_by_setting_evolve_the_table_and_stay_when_the_setting_goes(lake: Lakehouse) -> None:
    land(lake, "a.csv", row("S1"))
    ingest(lake)
    land(lake, "b.csv", row("S2") + ",007", header=HEADER.strip() + ",till\n")
    result = ingest(with_form(lake, FeedSettings(extra_columns={"till": "text"})))
    assert not any("left out" in note for note in result.notes)
    land(lake, "c.csv", row("S3"))
    assert ingest(lake).rows == 1
    assert lake.query("SELECT store_id, till FROM raw.pos_sales ORDER BY ALL").rows() == [
        ("S1", None),
        ("S2", "007"),
        ("S3", None),
    ]
    versions = lake.query("SELECT contract_version FROM raw.ingested_files ORDER BY file_name").to_series()
    assert versions.to_list() == ["1.0", "1.0+till", "1.0"]


def test_a_home_with_a_strange_name_is_read_all_the_same(settings: Settings, tmp_path: Path) -> None:
    lake = Lakehouse(settings.model_copy(update={"home": tmp_path / "o'home [1]*"}))
    (lake.settings.landing / "pos_sales").mkdir(parents=True)
    lake.prepare()
    land(lake, "a.csv", row("S1"))
    assert ingest(lake).rows == 1


def test_every_row_of_large_and_small_files_is_stored_once_with_its_number(lake: Lakehouse) -> None:
    frame = pl.DataFrame({"item_id": [f"I{n}" for n in range(300_000)]}).with_columns(
        business_date=pl.lit(date(2017, 3, 1)), store_id=pl.lit("S1"), quantity=pl.lit(1.5)
    )
    frame.write_parquet(lake.settings.landing / "pos_sales" / "large.parquet")
    land(lake, "small.csv", row("S2"))
    ingest(lake)
    facts = lake.query(
        "SELECT count(*), count(DISTINCT row_number), max(row_number), count(DISTINCT file_id), "
        "bool_and(store_id = 'S2' OR item_id = 'I' || (row_number - 1)) FROM raw.pos_sales"
    )
    assert facts.row(0) == (300_001, 300_000, 300_000, 2, True)
