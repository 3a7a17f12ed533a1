"""Bad input: every fault that a delivery may have has a defined outcome, and the good rows beside it go on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from retail_platform.contracts import FEEDS
from retail_platform.orchestration.sensors import clean_requests
from retail_platform_tests.simulated_retailer import Retailer, run_in_process

TODAY = datetime.now(UTC).date()
SALES = "business_date,store_id,item_id,quantity,sales_amount,transaction_id,line_number,sold_at,customer_id"
GOOD = {
    "business_date": "2017-03-01",
    "store_id": "S1",
    "item_id": "MILK",
    "quantity": "2",
    "sales_amount": "3.98",
    "transaction_id": "",
    "line_number": "1",
    "sold_at": "2017-03-01T18:22:05",
    "customer_id": "C-4711-00815",
}


@dataclass(frozen=True)
class Case:
    """A row that differs from a good one in `changes`, and the reasons for which it is rejected; none: it is clean. Its
    partition is its own date, or that of its arrival where that one cannot be used.
    """

    changes: Mapping[str, str]
    reasons: tuple[str, ...] = ()
    own_date: bool = True


FUTURE = TODAY + timedelta(days=30)
CASES = {
    "negative quantity": Case({"quantity": "-1", "sales_amount": "-1.99"}),
    "no optional value": Case({"sales_amount": "", "sold_at": "", "customer_id": ""}),
    "wrong type": Case({"quantity": "two"}, ("quantity: 'two' is not a number",)),
    "quantity missing": Case({"quantity": ""}, ("quantity is missing",)),
    "unknown item": Case({"item_id": "NAILS"}, ("item_id: 'NAILS' is not in clean.items",)),
    "unknown store": Case({"store_id": "S9"}, ("store_id: 'S9' is not in clean.stores",)),
    "future date": Case({"business_date": str(FUTURE)}, (f"business_date: {FUTURE} lies after today",), own_date=False),
    "date before the first": Case(
        {"business_date": "1999-12-31"},
        ("business_date: 1999-12-31 lies before the first accepted date",),
        own_date=False,
    ),
    "unreadable date": Case(
        {"business_date": "yesterday"}, ("business_date: 'yesterday' is not a date",), own_date=False
    ),
    "several faults": Case(
        {"quantity": "many", "item_id": "NAILS", "store_id": "S9", "line_number": "0"},
        (
            "quantity: 'many' is not a number",
            "line_number must be at least 1",
            "store_id: 'S9' is not in clean.stores",
            "item_id: 'NAILS' is not in clean.items",
        ),
    ),
}
ROW_NUMBERS = {name: number for number, name in enumerate(CASES, start=1)}


def line(row: Mapping[str, str]) -> str:
    return ",".join(row.values()) + "\n"


def case_rows() -> str:
    rows = [{**GOOD, "transaction_id": name, **case.changes} for name, case in CASES.items()]
    return SALES + "\n" + "".join(line(row) for row in rows)


def drop(retailer: Retailer, feed: str, name: str, text: str) -> Path:
    file = retailer.settings.landing / feed / name
    file.write_text(text, encoding="utf-8")
    return file


def file_id(retailer: Retailer, name: str) -> str:
    return str(
        retailer.lake.query("SELECT file_id FROM raw.ingested_files WHERE file_name = ?", [name]).to_series().item()
    )


def ingest(retailer: Retailer, instance: dg.DagsterInstance, *feeds: str) -> dg.ExecuteInProcessResult:
    keys = [dg.AssetKey(FEEDS[feed].raw_table.split(".")) for feed in feeds]
    return run_in_process(retailer, instance, keys)


def clean(retailer: Retailer, instance: dg.DagsterInstance) -> None:
    # Masters are asked for first and alone, and days once these are done.
    while requests := clean_requests(retailer.lake, instance):
        for request in requests:
            keys = list(request.asset_selection or ())
            assert run_in_process(retailer, instance, keys, request.tags).success


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert event.step_failure_data.user_failure_data is not None
    return str(event.step_failure_data.user_failure_data.description)


@dataclass(frozen=True)
class Delivery:
    """A retailer that got good files, then bad ones beside good ones, then a correction."""

    retailer: Retailer
    good_sales: pl.DataFrame
    sales_after_refusal: pl.DataFrame
    refusal: dg.ExecuteInProcessResult
    cases: str
    corrected: str


@pytest.fixture(scope="module")
def delivery(opening_day: Retailer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    retailer = opening_day.copy_to(tmp_path_factory.mktemp("bad_input") / "home")
    with dg.DagsterInstance.ephemeral() as instance:
        drop(retailer, "items", "items.csv", "item_id,category\nMILK,DAIRY\nSOUP,GROCERY\n")
        drop(retailer, "stores", "stores.csv", "store_id,store_name\nS1,Main Street\n")
        drop(retailer, "pos_sales", "a_good.csv", f"{SALES}\n" + line({**GOOD, "transaction_id": "good"}))
        assert ingest(retailer, instance, "items", "stores", "pos_sales").success
        clean(retailer, instance)
        good_sales = retailer.lake.read("clean.sales")

        drop(retailer, "pos_sales", "b_broken.csv", "business_date,store_id,item_id\n2017-03-01,S1,MILK\n")
        drop(retailer, "pos_sales", "c_cases.csv", case_rows())
        drop(retailer, "pos_sales", "d_copy.csv", case_rows())
        drop(retailer, "pos_sales", "e_header.csv", SALES + "\n")
        drop(retailer, "pos_sales", "f_nothing.csv", "")
        twice = line({**GOOD, "transaction_id": "twice"})
        drop(retailer, "pos_sales", "g_twice.csv", f"{SALES}\n{twice}{twice}")
        refusal = ingest(retailer, instance, "pos_sales")
        sales_after_refusal = retailer.lake.read("clean.sales")
        clean(retailer, instance)

        (retailer.settings.landing / "pos_sales" / "b_broken.csv").unlink()
        drop(
            retailer,
            "pos_sales",
            "h_corrected.csv",
            f"{SALES}\n" + line({**GOOD, "transaction_id": "good", "quantity": "5"}),
        )
        assert ingest(retailer, instance, "pos_sales").success
        clean(retailer, instance)
        yield Delivery(
            retailer,
            good_sales,
            sales_after_refusal,
            refusal,
            file_id(retailer, "c_cases.csv"),
            file_id(retailer, "h_corrected.csv"),
        )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reasons])
def test_a_faulty_row_is_rejected_whole_with_every_reason_and_its_row_number(delivery: Delivery, name: str) -> None:
    rejected = delivery.retailer.lake.read("quarantine.rejected_rows").filter(
        (pl.col("file_id") == delivery.cases) & (pl.col("row_number") == ROW_NUMBERS[name])
    )
    (row,) = rejected.to_dicts()
    reasons = [reason.split(" (")[0].split(",")[0] for reason in row["reasons"]]
    assert sorted(reasons) == sorted(CASES[name].reasons)
    files = delivery.retailer.lake.read("raw.ingested_files").filter(file_id=delivery.cases)
    # The day of arrival, which need not be the one on which these tests began.
    arrived = files["ingested_at"].item().date()
    assert row["partition_date"] == (date(2017, 3, 1) if CASES[name].own_date else arrived)
    assert f'"transaction_id":"{name}"' in row["row_json"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.reasons])
def test_an_unusual_but_sound_row_is_accepted(delivery: Delivery, name: str) -> None:
    sales = delivery.retailer.lake.read("clean.sales").filter(transaction_id=name)
    assert sales["source_row_number"].to_list() == [ROW_NUMBERS[name]]
    assert sales["quantity"].to_list() == [float({**GOOD, **CASES[name].changes}["quantity"])]


def test_no_faulty_row_is_clean(delivery: Delivery) -> None:
    sales = delivery.retailer.lake.read("clean.sales")
    assert set(sales["transaction_id"]) == {
        "good",
        "twice",
        *(name for name, case in CASES.items() if not case.reasons),
    }


def test_a_file_without_required_columns_fails_the_run_with_file_columns_and_remedy(delivery: Delivery) -> None:
    assert not delivery.refusal.success
    message = failure(delivery.refusal)
    assert "1 files of pos_sales were refused, the others were taken in" in message
    for words in (
        "b_broken.csv",
        "quantity",
        "business_date, store_id, item_id",
        "Add them to the file",
        "retail.toml",
    ):
        assert words in message


def test_files_beside_a_broken_one_are_taken_in(delivery: Delivery) -> None:
    ledger = delivery.retailer.lake.read("raw.ingested_files").filter(feed="pos_sales")
    assert dict(ledger.select("file_name", "rows").iter_rows()) == {
        "a_good.csv": 1,
        "c_cases.csv": len(CASES),
        "e_header.csv": 0,
        "f_nothing.csv": 0,
        "g_twice.csv": 2,
        "h_corrected.csv": 1,
    }


def test_a_refused_file_leaves_the_last_good_table_as_it_was(delivery: Delivery) -> None:
    assert delivery.good_sales["transaction_id"].to_list() == ["good"]
    assert delivery.sales_after_refusal.equals(delivery.good_sales)


def test_empty_files_are_noted_and_harmless(delivery: Delivery) -> None:
    ledger = delivery.retailer.lake.read("raw.ingested_files").filter(pl.col("rows") == 0)
    assert set(ledger["status"]) == {"empty"}
    assert set(ledger["file_name"]) == {"e_header.csv", "f_nothing.csv"}


def test_the_same_content_under_another_name_is_known_and_adds_nothing(delivery: Delivery) -> None:
    raw = delivery.retailer.lake.read("raw.pos_sales")
    assert raw.filter(file_id=delivery.cases).height == len(CASES)
    names = delivery.retailer.lake.read("raw.ingested_files")["file_name"]
    assert "d_copy.csv" not in set(names)


def test_a_line_that_stands_twice_counts_once(delivery: Delivery) -> None:
    sales = delivery.retailer.lake.read("clean.sales").filter(transaction_id="twice")
    assert sales["source_row_number"].to_list() == [1]
    duplicates = delivery.retailer.lake.read("quarantine.duplicate_rows").filter(
        file_id=file_id(delivery.retailer, "g_twice.csv")
    )
    assert duplicates.select("row_number", "kept_row_number", "kind").rows() == [(2, 1, "repeated")]


def test_a_corrected_file_supersedes_the_earlier_row_and_says_so(delivery: Delivery) -> None:
    sales = delivery.retailer.lake.read("clean.sales").filter(transaction_id="good")
    assert sales.select("quantity", "source_file_id").rows() == [(5.0, delivery.corrected)]
    duplicates = delivery.retailer.lake.read("quarantine.duplicate_rows").filter(kind="superseded")
    assert duplicates.select("file_id", "row_number", "kept_file_id", "kept_row_number").rows() == [
        (file_id(delivery.retailer, "a_good.csv"), 1, delivery.corrected, 1)
    ]


def test_every_row_is_accounted_for(delivery: Delivery) -> None:
    lake = delivery.retailer.lake
    arrived = lake.read("raw.pos_sales").height
    accounted = lake.read("clean.sales").height + sum(
        lake.read(name).filter(feed="pos_sales").height
        for name in ("quarantine.rejected_rows", "quarantine.duplicate_rows")
    )
    assert arrived == accounted == 1 + len(CASES) + 2 + 1


def test_the_customer_is_named_in_raw_and_in_rejected_rows_only(delivery: Delivery) -> None:
    lake, customer = delivery.retailer.lake, GOOD["customer_id"]
    assert customer in set(lake.read("raw.pos_sales")["customer_id"])
    pseudonyms = lake.read("clean.sales")["customer_pseudonym"].drop_nulls()
    assert pseudonyms.len() > 0
    assert customer not in set(pseudonyms)
    data = delivery.retailer.settings.lake_data
    holding = {
        file.relative_to(data).parts[:2] for file in data.rglob("*.parquet") if customer.encode() in file.read_bytes()
    }
    assert ("raw", "pos_sales") in holding
    assert holding <= {("raw", "pos_sales"), ("quarantine", "rejected_rows")}


def test_a_file_dropped_into_the_wrong_folder_first_is_taken_in_where_it_belongs(new_retailer: Retailer) -> None:
    content = "store_id,item_id,business_date,quantity\nS1,MILK,2017-03-01,2\n"
    with dg.DagsterInstance.ephemeral() as instance:
        file = drop(new_retailer, "stores", "sales.csv", content)
        assert ingest(new_retailer, instance, "stores").success
        file.rename(new_retailer.settings.landing / "pos_sales" / "sales.csv")
        assert ingest(new_retailer, instance, "pos_sales").success
    assert new_retailer.lake.read("raw.pos_sales").height == 1


def test_without_any_sales_science_says_what_to_do(new_retailer: Retailer) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_in_process(new_retailer, instance, [dg.AssetKey(["features", "demand"])])
    assert not result.success
    assert "clean.sales is empty" in failure(result)
    assert f"drop point-of-sale files into {new_retailer.settings.landing / 'pos_sales'}" in failure(result)
