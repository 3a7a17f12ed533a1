"""The quarantine as a workplace: rejected rows are shown, judged again and waived, and decisions are kept."""

import json
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.contracts import FEEDS
from retail_platform.governance.quarantine import (
    QuarantineError,
    Selection,
    by_reason,
    duplicates_by_file,
    rejected_rows,
    replaced_rows,
)
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.orchestration.replay import move_to_own_days
from retail_platform.orchestration.sensors import range_tags
from retail_platform.settings import FeedSettings
from retail_platform_tests.shell import Shell
from retail_platform_tests.simulated_retailer import Retailer, run_in_process

MONDAY, TUESDAY = date(2017, 3, 6), date(2017, 3, 7)
CUSTOMER = "C-4711-00815"


def sale(**changes: Any) -> dict[str, Any]:
    return {
        "business_date": str(MONDAY),
        "store_id": "S1",
        "item_id": "MILK",
        "quantity": "1",
        "customer_id": CUSTOMER,
        **changes,
    }


def deliver(retailer: Retailer, feed: str, name: str, rows: list[dict[str, Any]]) -> None:
    retailer.land(feed, name, rows)
    assert not ingest_feed(retailer.lake, feed, "test").broken


def clean_sales(retailer: Retailer, first: date, last: date) -> bool:
    with dg.DagsterInstance.ephemeral() as instance:
        keys = [dg.AssetKey(["clean", "sales"])]
        return run_in_process(retailer, instance, keys, range_tags(first, last)).success


@pytest.fixture(scope="module")
def shop(opening_day: Retailer, tmp_path_factory: pytest.TempPathFactory) -> Retailer:
    """Rejected, repeated and corrected rows on two days, and a third day that is withheld. Tests read it only."""
    retailer = opening_day.copy_to(tmp_path_factory.mktemp("quarantine") / "home")
    good = sale(item_id="SOUP")
    deliver(retailer, "pos_sales", "a.csv", [sale(quantity="many"), sale(quantity="few", store_id=" "), good, good])
    deliver(
        retailer, "pos_sales", "b.csv", [sale(business_date=str(TUESDAY), quantity="1,5"), good | {"quantity": "4"}]
    )
    assert clean_sales(retailer, MONDAY, TUESDAY)
    wednesday = str(TUESDAY + timedelta(days=1))
    deliver(retailer, "pos_sales", "c.csv", [sale(business_date=wednesday, quantity=f"x{n}") for n in range(30)])
    assert not clean_sales(retailer, TUESDAY + timedelta(days=1), TUESDAY + timedelta(days=1))
    return retailer


@pytest.fixture
def own_shop(shop: Retailer, tmp_path: Any) -> Retailer:
    """A copy that a test may change."""
    return shop.copy_to(tmp_path / "home")


class TestLooking:
    def test_rows_are_counted_by_feed_and_kind_of_reason(self, shop: Retailer) -> None:
        counted = by_reason(rejected_rows(shop.lake, Selection()))
        assert counted.rows() == [
            ("pos_sales", "quantity is not a number", "open", 3, MONDAY, TUESDAY, "a.csv, b.csv"),
            ("pos_sales", "store_id is missing", "open", 1, MONDAY, MONDAY, "a.csv"),
        ]

    @pytest.mark.parametrize(
        ("selection", "expected"),
        [
            (Selection(feed="pos_sales"), [("a.csv", 1), ("a.csv", 2), ("b.csv", 1)]),
            (Selection(feed="items"), []),
            (Selection(file="b.csv"), [("b.csv", 1)]),
            (Selection(file="a.csv", row=2), [("a.csv", 2)]),
            (Selection(reasons=("store_id is missing",)), [("a.csv", 2)]),
        ],
    )
    def test_rows_are_found_by_feed_file_row_and_reason(
        self, shop: Retailer, selection: Selection, expected: list[tuple[str, int]]
    ) -> None:
        assert rejected_rows(shop.lake, selection).select("file_name", "row_number").rows() == expected

    @pytest.mark.parametrize(
        ("selection", "words"),
        [
            (Selection(feed="sales"), "unknown feed sales; known are pos_sales"),
            (Selection(file="a.cvs"), "no file a.cvs was taken in; did you mean a.csv"),
            (Selection(reasons=("quantity is wrong",)), "those there are: 'quantity is not a number'"),
        ],
    )
    def test_what_is_not_there_is_answered_with_what_is(self, shop: Retailer, selection: Selection, words: str) -> None:
        with pytest.raises(QuarantineError, match=words):
            rejected_rows(shop.lake, selection)

    def test_a_correction_shows_what_it_replaced(self, shop: Retailer) -> None:
        assert duplicates_by_file(shop.lake, Selection()).select("kind", "file_name", "kept_from", "rows").rows() == [
            ("superseded", "a.csv", "b.csv", 2),
        ]
        shown = replaced_rows(shop.lake, Selection(), 10)
        assert shown.select("file_name", "row_number", "kept_from", "kept_row_number", "changes").rows() == [
            ("a.csv", 3, "b.csv", 2, "quantity: 1 -> 4"),
            ("a.csv", 4, "b.csv", 2, "quantity: 1 -> 4"),
        ]
        assert shown["key"].to_list() == ["business_date=2017-03-06, store_id=S1, item_id=SOUP"] * 2


class TestCommands:
    def test_the_list_shows_open_rows_and_those_of_withheld_days(self, shell: Shell, shop: Retailer) -> None:
        rows = shell.use(shop).rows("quarantine", "list", "--json")
        assert [(row["state"], row["reason"], row["rows"]) for row in rows] == [
            ("withheld", "quantity is not a number", 30),
            ("open", "quantity is not a number", 3),
            ("open", "store_id is missing", 1),
        ]

    def test_a_row_is_shown_as_its_file_had_it_without_personal_values(self, shell: Shell, shop: Retailer) -> None:
        (row,) = shell.use(shop).rows("quarantine", "show", "--file", "a.csv", "--row", "2", "--json")
        assert row["reasons"] == ["quantity: 'few' is not a number", "store_id is missing"]
        assert isinstance(row["row"], dict)
        assert (row["row"]["store_id"], row["row"]["customer_id"]) == (" ", "***")
        code, output, _ = shell("quarantine", "show", "--file", "a.csv")
        assert code == 0
        assert "pos_sales/a.csv row 1, day 2017-03-06, open" in output
        assert "customer_id=***" in output
        assert CUSTOMER not in output

    def test_a_revealed_value_is_written_to_the_audit_log(self, shell: Shell, own_shop: Retailer) -> None:
        shell.use(own_shop).monkeypatch.setenv("RETAIL_USER", "ada")
        (row,) = shell.rows(
            "quarantine", "show", "--file", "b.csv", "--reveal", "--why", "request of the customer", "--json"
        )
        assert isinstance(row["row"], dict)
        assert row["row"]["customer_id"] == CUSTOMER
        (entry,) = own_shop.lake.read("governance.audit_log").to_dicts()
        assert (entry["who"], entry["action"], entry["reason"]) == ("ada", "reveal", "request of the customer")
        assert json.loads(entry["details"])["rows"][0].endswith("row 1")
        assert CUSTOMER not in entry["details"]

    def test_waived_rows_stay_and_are_told_apart_with_who_and_why(self, shell: Shell, own_shop: Retailer) -> None:
        shell.use(own_shop).monkeypatch.setenv("RETAIL_USER", "ada")
        before = own_shop.lake.read("quarantine.rejected_rows")
        reason = ("--reason", "quantity is not a number")
        code, output, errors = shell("quarantine", "waive", "--file", "a.csv", *reason, "--why", "training till")
        assert code == 0, errors
        assert "1 rows waived; 1 have other reasons too and were left" in output
        assert "other reasons too" in shell.refused("quarantine", "waive", "--file", "a.csv", *reason, "--why", "again")
        assert_frame_equal(own_shop.lake.read("quarantine.rejected_rows"), before)
        states = rejected_rows(own_shop.lake, Selection(file="a.csv"))["state"].to_list()
        assert states == ["waived", "open"]
        (entry,) = own_shop.lake.read("governance.audit_log").to_dicts()
        assert (entry["who"], entry["action"], entry["reason"]) == ("ada", "waive", "training till")
        assert own_shop.lake.read("quarantine.waivers")["audit_id"].to_list() == [entry["audit_id"]]

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("waive", "--why", "x"), "name the rows"),
            (("waive", "--feed", "pos_sales", "--why", " "), "say why"),
            (("waive", "--feed", "pos_sales", "--row", "3", "--why", "x"), "name the file"),
            (("waive", "--feed", "items", "--why", "x"), "no open row is as selected"),
            (("show", "--feed", "sales"), "unknown feed sales"),
            (("replay", "--read-again"), "name it with --file"),
        ],
    )
    def test_a_mistake_is_answered_in_one_sentence(
        self, shell: Shell, shop: Retailer, words: tuple[str, ...], sentence: str
    ) -> None:
        said = shell.use(shop).refused("quarantine", *words)
        assert sentence in said
        assert len(said.splitlines()) == 1

    def test_waiving_a_withheld_day_lets_it_in(self, shell: Shell, own_shop: Retailer) -> None:
        shell.use(own_shop)
        code, output, errors = shell("quarantine", "waive", "--file", "c.csv", "--why", "nobody knows the numbers")
        assert code == 0, errors
        assert "30 rows waived" in output
        assert clean_sales(own_shop, TUESDAY + timedelta(days=1), TUESDAY + timedelta(days=1))
        assert own_shop.lake.read("quarantine.rejected_rows").height == 33
        assert own_shop.lake.read("quarantine.withheld_days").is_empty()


class TestReplay:
    def test_after_a_fix_of_the_settings_rows_become_clean(self, shell: Shell, own_shop: Retailer) -> None:
        shell.use(own_shop).monkeypatch.setenv("RETAIL_FEEDS__POS_SALES__DECIMAL", ",")
        (row,) = shell.rows("quarantine", "replay", "--file", "b.csv", "--json")
        assert row == {
            "feed": "pos_sales",
            "file_name": "b.csv",
            "rows": 1,
            "clean": 1,
            "duplicate": 0,
            "rejected": 0,
            "withheld": 0,
            "moved": 0,
        }
        sales = own_shop.lake.read("clean.sales", where="business_date = ?", parameters=[TUESDAY])
        assert sales["quantity"].to_list() == [1.5]
        (entry,) = own_shop.lake.read("governance.audit_log").to_dicts()
        assert entry["action"] == "replay"

    def test_rows_whose_dates_can_be_read_now_move_to_their_days(self, shell: Shell, new_retailer: Retailer) -> None:
        rows = [sale(business_date="06.03.2017"), sale(business_date="07.03.2017"), sale(business_date="never")]
        deliver(new_retailer, "pos_sales", "german.csv", rows)
        arrival = new_retailer.lake.read("raw.pos_sales")["partition_date"][0]
        assert clean_sales(new_retailer, arrival, arrival)
        assert new_retailer.lake.read("quarantine.rejected_rows").height == 3
        shell.use(new_retailer).monkeypatch.setenv("RETAIL_FEEDS__POS_SALES__DATE_FORMAT", "%d.%m.%Y")
        (row,) = shell.rows("quarantine", "replay", "--feed", "pos_sales", "--json")
        assert (row["rows"], row["clean"], row["rejected"], row["moved"]) == (3, 2, 1, 2)
        assert set(new_retailer.lake.read("clean.sales")["business_date"]) == {MONDAY, TUESDAY}

    def test_a_file_whose_column_was_mapped_wrongly_is_read_again(self, shell: Shell, new_retailer: Retailer) -> None:
        wrong = FeedSettings(columns={"quantity": "till"})
        retailer = new_retailer.with_settings(feeds={"pos_sales": wrong})
        retailer.lake.prepare()
        file = retailer.settings.landing / "pos_sales" / "a.csv"
        file.write_text(f"business_date,store_id,item_id,quantity,till\n{MONDAY},S1,MILK,3,T1\n", encoding="utf-8")
        assert not ingest_feed(retailer.lake, "pos_sales", "test").broken
        assert clean_sales(retailer, MONDAY, MONDAY)
        assert retailer.lake.read("quarantine.rejected_rows").height == 1
        before = retailer.lake.read("raw.ingested_files")
        (row,) = shell.use(new_retailer).rows("quarantine", "replay", "--file", "a.csv", "--read-again", "--json")
        assert (row["rows"], row["clean"], row["rejected"]) == (1, 1, 0)
        assert new_retailer.lake.read("clean.sales")["quantity"].to_list() == [3.0]
        after = new_retailer.lake.read("raw.ingested_files")
        assert_frame_equal(after.drop("run_id"), before.drop("run_id"))
        file.unlink()
        said = shell.refused("quarantine", "replay", "--file", "a.csv", "--read-again")
        assert "not in the landing zone any more" in said


def test_moving_rows_to_their_days_changes_no_other_column_and_loses_no_row(new_retailer: Retailer) -> None:
    days = [str(MONDAY), "07.03.2017", "08.03.2017", "31.12.2999", "01.01.1999", "", "never", str(TUESDAY)]
    deliver(
        new_retailer, "pos_sales", "a.csv", [sale(business_date=day, item_id=f"I{n}") for n, day in enumerate(days)]
    )
    deliver(new_retailer, "pos_sales", "b.csv", [sale(business_date="07.03.2017")])
    file = new_retailer.lake.read("raw.ingested_files", where="file_name = 'a.csv'")["file_id"].item()
    before = new_retailer.lake.read("raw.pos_sales").sort("file_id", "row_number")
    arrival = before["partition_date"].max()
    assert arrival is not None

    german = new_retailer.with_settings(feeds={"pos_sales": FeedSettings(date_format="%d.%m.%Y")})
    left, reached, moved = move_to_own_days(german.lake, FEEDS["pos_sales"], file)
    assert (left, reached, moved) == ({arrival}, {TUESDAY, TUESDAY + timedelta(days=1)}, 2)
    after = german.lake.read("raw.pos_sales").sort("file_id", "row_number")
    assert_frame_equal(after.drop("partition_date"), before.drop("partition_date"))
    of_file = after.filter(file_id=file)["partition_date"].to_list()
    assert of_file == [MONDAY, TUESDAY, TUESDAY + timedelta(days=1), arrival, arrival, arrival, arrival, TUESDAY]
    assert_frame_equal(after.filter(pl.col("file_id") != file), before.filter(pl.col("file_id") != file))
    ledger = german.lake.read("raw.ingested_files", where="file_name = 'a.csv'").row(0, named=True)
    assert (ledger["rows"], ledger["first_date"], ledger["last_date"]) == (8, MONDAY, arrival)
    assert move_to_own_days(german.lake, FEEDS["pos_sales"], file) == (set(), set(), 0), "a second time changes nothing"
