"""A feed that is declared complete per store and day, from the landing files to what the data steward is shown."""

from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg
import pytest

from retail_platform.contracts import FEEDS
from retail_platform.governance.quarantine import Selection, duplicates_by_file, replaced_rows
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.orchestration.replay import replay
from retail_platform.orchestration.sensors import range_tags
from retail_platform.orchestration.staleness import last_commits, pending_days
from retail_platform.settings import FeedSettings
from retail_platform_tests.simulated_retailer import Retailer, run_in_process

MONDAY = date(2017, 3, 6)
TUESDAY = MONDAY + timedelta(days=1)
COMPLETE = FeedSettings(replaces="store_day")


@dataclass
class Shop:
    """A retailer and the settings of its sales, which may change."""

    retailer: Retailer

    def declare(self, form: FeedSettings) -> None:
        self.retailer = self.retailer.with_settings(feeds={"pos_sales": form})

    def deliver(self, name: str, *lines: dict[str, str]) -> None:
        self.retailer.land("pos_sales", name, lines)
        assert not ingest_feed(self.retailer.lake, "pos_sales", "test").broken

    def pending(self) -> list[date]:
        with dg.DagsterInstance.ephemeral() as instance:
            return pending_days(self.retailer.lake, FEEDS["pos_sales"], last_commits(self.retailer.lake, instance))

    def clean(self) -> list[tuple[str, str, float]]:
        """Clean what is pending; the rows of Monday."""
        days = self.pending()
        with dg.DagsterInstance.ephemeral() as instance:
            tags = range_tags(min(days), max(days))
            result = run_in_process(self.retailer, instance, [dg.AssetKey(["clean", "sales"])], tags)
            assert result.success, "with the check that every row is accounted for"
        assert self.pending() == [], "nothing stays pending"
        return self.monday()

    def monday(self) -> list[tuple[str, str, float]]:
        rows = self.retailer.lake.read("clean.sales", where="business_date = ?", parameters=[MONDAY])
        return sorted(rows.select("store_id", "item_id", "quantity").rows())


def line(item: str, quantity: str, store: str = "S1", day: date = MONDAY) -> dict[str, str]:
    return {"business_date": str(day), "store_id": store, "item_id": item, "quantity": quantity}


@pytest.fixture
def shop(new_retailer: Retailer) -> Shop:
    """Two stores and two days, and a correction of one store-day that leaves a line out."""
    shop = Shop(new_retailer)
    monday = [line("MILK", "1"), line("SOUP", "2"), line("MILK", "3", "S2")]
    shop.deliver("monday.csv", *monday, line("MILK", "4", day=TUESDAY))
    shop.deliver("monday_v2.csv", line("MILK", "5"))
    return shop


def test_a_declaration_has_the_days_cleaned_again_and_what_it_withdraws_can_be_seen_and_taken_back(shop: Shop) -> None:
    other_store = ("S2", "MILK", 3.0)
    row_by_row = [("S1", "MILK", 5.0), ("S1", "SOUP", 2.0), other_store]
    assert shop.clean() == row_by_row

    shop.declare(COMPLETE)
    assert shop.pending() == [MONDAY], "Tuesday is of one file and is left alone"
    assert shop.clean() == [("S1", "MILK", 5.0), other_store]
    counted = duplicates_by_file(shop.retailer.lake, Selection())
    assert counted.select("kind", "file_name", "kept_from", "rows").rows() == [
        ("superseded", "monday.csv", "monday_v2.csv", 1),
        ("withdrawn", "monday.csv", "monday_v2.csv", 1),
    ]
    shown = replaced_rows(shop.retailer.lake, Selection(), 10)
    assert shown.select("row_number", "kept_row_number", "changes").rows() == [
        (1, 1, "quantity: 1 -> 5"),
        (2, None, "the later file has no such row"),
    ]

    shop.declare(FeedSettings())
    assert shop.clean() == row_by_row


def test_a_declaration_withdraws_broken_lines_of_the_file_before_the_one_that_counts(shop: Shop) -> None:
    shop.declare(FeedSettings())
    late = TUESDAY + timedelta(days=1)
    shop.deliver("late.csv", line("MILK", "many", day=late), line("SOUP", "many", day=late))
    shop.deliver("late_v2.csv", line("MILK", "2", day=late))
    shop.clean()
    rejected = shop.retailer.lake.read("quarantine.rejected_rows")
    assert rejected.height == 2

    shop.declare(COMPLETE)
    assert late in shop.pending(), "of the counting file alone, but with broken lines of the one before"
    shop.clean()
    assert shop.retailer.lake.read("quarantine.rejected_rows").is_empty()

    shop.declare(FeedSettings())
    assert late in shop.pending(), "also for the line that the counting file has, too"
    shop.clean()
    assert shop.retailer.lake.read("quarantine.rejected_rows").drop("rejected_at").equals(rejected.drop("rejected_at"))


def test_a_broken_correction_leaves_the_day_as_it_was_until_a_replay_finds_it_good(shop: Shop) -> None:
    shop.declare(COMPLETE)
    shop.deliver("monday_v3.csv", line("BREAD", "1,5"), line("MILK", "7"))
    assert shop.clean() == [("S1", "MILK", 5.0), ("S2", "MILK", 3.0)]
    reasons = shop.retailer.lake.read("quarantine.rejected_rows").sort("row_number")["reasons"].to_list()
    assert reasons == [
        ["quantity: '1,5' is not a number"],
        ["more rows of this store and day are rejected than the reject budget allows; the earlier file stays"],
    ]

    shop.declare(COMPLETE.model_copy(update={"decimal": ","}))
    outcome = replay(shop.retailer.lake, Selection(file="monday_v3.csv"), who="test").outcome
    assert outcome.select("rows", "clean", "rejected").rows() == [(2, 2, 0)]
    assert shop.monday() == [("S1", "BREAD", 1.5), ("S1", "MILK", 7.0), ("S2", "MILK", 3.0)]
