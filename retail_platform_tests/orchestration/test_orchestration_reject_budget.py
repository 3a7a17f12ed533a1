"""The reject budget: a day with too many rejected rows is withheld, tells why, and is judged anew when that helps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Append, Provenance
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.orchestration.sensors import RANGE_END, RANGE_START, clean_requests
from retail_platform.settings import FeedSettings
from retail_platform_tests.simulated_retailer import Retailer, run_in_process

MARCH = [date(2017, 3, day) for day in range(1, 9)]
GOOD, BAD, NEXT, LATER, UNKNOWN_ITEMS, BESIDE_BAD_ITEMS = MARCH[:6]


def sales(day: date, quantity: str = "1", rows: int = 30, item: str = "MILK") -> list[dict[str, Any]]:
    return [
        {"business_date": day, "store_id": f"S{number}", "item_id": item, "quantity": quantity}
        for number in range(rows)
    ]


@dataclass
class Shop:
    """A retailer whose daemon works: each request is run once per key, as Dagster's daemon would."""

    retailer: Retailer
    instance: dg.DagsterInstance
    asked: set[str | None] = field(default_factory=set)

    def deliver(self, feed: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.retailer.land(feed, name, rows)
        assert not ingest_feed(self.retailer.lake, feed, "test").broken

    def clean(self) -> list[dg.ExecuteInProcessResult]:
        results = []
        while requests := [r for r in clean_requests(self.retailer.lake, self.instance) if r.run_key not in self.asked]:
            for request in requests:
                self.asked.add(request.run_key)
                keys = list(request.asset_selection or ())
                results.append(run_in_process(self.retailer, self.instance, keys, request.tags))
        return results

    def clean_days(self) -> set[date]:
        return set(self.retailer.lake.read("clean.sales")["business_date"])


def failures(results: Sequence[dg.ExecuteInProcessResult]) -> list[str]:
    events = [event for result in results for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    told = [event.step_failure_data.user_failure_data for event in events]
    assert all(told), [event.step_failure_data.error for event in events]
    return [str(words.description) for words in told if words]


@dataclass
class Facts:
    """What was seen at each step of the story."""

    said: dict[str, list[str]] = field(default_factory=dict)
    days: dict[str, set[date]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    good_day_kept: bool = False
    requested_around_a_withheld_day: list[tuple[str, str]] = field(default_factory=list)
    set_aside_while_withheld: int = -1


@pytest.fixture(scope="module")
def story(opening_day: Retailer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Facts]]:
    """A retailer with a bad day, a bad correction, waivers, a raised budget, late items and a bad item master."""
    retailer = opening_day.copy_to(tmp_path_factory.mktemp("reject_budget") / "home")
    facts = Facts()
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(retailer, instance)

        def after(step: str) -> None:
            results = shop.clean()
            facts.said[step] = failures(results)
            facts.runs[step] = len(results)
            facts.days[step] = shop.clean_days()

        shop.deliver("pos_sales", "good.csv", sales(GOOD) + sales(NEXT))
        shop.deliver("pos_sales", "bad.csv", [*sales(BAD, rows=9), *sales(BAD, "many", rows=21)])
        after("bad day")
        facts.set_aside_while_withheld = retailer.lake.read("quarantine.rejected_rows").height
        after("nothing new")

        good_day = retailer.lake.read("clean.sales", where="business_date = ?", parameters=[GOOD])
        shop.deliver("pos_sales", "bad_correction.csv", sales(GOOD, "broken"))
        after("bad correction")
        facts.good_day_kept = good_day.equals(
            retailer.lake.read("clean.sales", where="business_date = ?", parameters=[GOOD])
        )
        shop.deliver("pos_sales", "later.csv", sales(LATER) + sales(NEXT, item="SOUP"))
        facts.requested_around_a_withheld_day = [
            (request.tags[RANGE_START], request.tags[RANGE_END]) for request in clean_requests(retailer.lake, instance)
        ]
        after("later day")

        table = TABLES["quarantine.waivers"]
        raw = retailer.lake.read("raw.pos_sales", where="partition_date = ?", parameters=[BAD])
        waived = raw.with_columns(feed=pl.lit("pos_sales"), audit_id=pl.lit("test")).select(table.polars_schema.names())
        retailer.lake.commit([Append(table, waived)], Provenance(table.name, "test"))
        after("waived")

        shop.retailer = retailer.with_settings(feeds={"pos_sales": FeedSettings(reject_budget=0.8)})
        after("budget raised")
        shop.retailer = retailer

        shop.deliver("items", "few.csv", [{"item_id": "BREAD"}])
        shop.deliver("pos_sales", "unknown.csv", sales(UNKNOWN_ITEMS))
        after("unknown items")
        shop.deliver("items", "more.csv", [{"item_id": "MILK"}, {"item_id": "SOUP"}])
        after("items arrived")

        shop.deliver("items", "bad.csv", [{"item_id": f"I{n}", "case_pack": "a dozen"} for n in range(30)])
        shop.deliver("pos_sales", "beside.csv", sales(BESIDE_BAD_ITEMS))
        after("bad items")
        yield shop, facts


def test_a_bad_day_is_withheld_and_its_neighbours_are_written(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    assert facts.days["bad day"] == {GOOD, NEXT}
    assert facts.set_aside_while_withheld == 0, "rows are clean, rejected or duplicate only where their day is written"
    (message,) = facts.said["bad day"]
    for words in (
        "1 days of clean.sales are withheld",
        "reject budget of 5.0%",
        "2017-03-02: 21 of 30 rows (70.0%)",
        "21 rows: quantity is not a number, for example row 10 of bad.csv (quantity: 'many' is not a number)",
        "quarantine show --feed pos_sales",
        "quarantine replay",
        "quarantine waive",
        "feeds.pos_sales.reject_budget",
    ):
        assert words in message


def test_a_withheld_day_is_not_asked_for_as_long_as_nothing_changes(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    assert facts.runs["nothing new"] == 0


def test_what_was_clean_before_a_bad_correction_stays(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    (message,) = facts.said["bad correction"]
    assert "2017-03-01: 30 of 60 rows" in message
    assert facts.good_day_kept


def test_new_days_do_not_wait_for_a_withheld_one_and_no_request_goes_over_it(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    assert facts.requested_around_a_withheld_day == [(str(NEXT), str(LATER))]
    assert facts.said["later day"] == []
    assert LATER in facts.days["later day"]


def test_waived_rows_count_against_no_budget(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    assert (facts.runs["waived"], facts.said["waived"]) == (1, [])
    assert BAD in facts.days["waived"]


def test_a_raised_budget_lets_the_day_in(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    assert (facts.runs["budget raised"], facts.said["budget raised"]) == (1, [])


def test_a_day_that_waits_for_its_items_is_judged_again_when_they_arrive(story: tuple[Shop, Facts]) -> None:
    _, facts = story
    (message,) = facts.said["unknown items"]
    assert "item_id is not in clean.items" in message
    assert UNKNOWN_ITEMS not in facts.days["unknown items"]
    assert facts.said["items arrived"] == []
    assert UNKNOWN_ITEMS in facts.days["items arrived"]


def test_a_withheld_master_keeps_its_last_good_rows_and_holds_no_day_back(story: tuple[Shop, Facts]) -> None:
    shop, facts = story
    (message,) = facts.said["bad items"]
    assert message.startswith("clean.items is withheld")
    assert set(shop.retailer.lake.read("clean.items")["item_id"]) == {"BREAD", "MILK", "SOUP"}
    assert BESIDE_BAD_ITEMS in facts.days["bad items"]


def test_the_page_of_the_quarantine_shows_rows_by_feed_and_reason(story: tuple[Shop, Facts]) -> None:
    shop, _ = story
    event = shop.instance.get_latest_materialization_event(dg.AssetKey(["quarantine", "rejected_rows"]))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["rows_by_feed"].value == {"pos_sales": 51}
    records = metadata["rows_by_feed_and_reason"].value.records  # type: ignore[union-attr]
    assert [record.data for record in records] == [
        {"feed": "pos_sales", "reason": "quantity is not a number", "rows": 51}
    ]


def test_a_check_warns_from_half_of_the_budget_on_and_holds_nothing_back(
    new_retailer: Retailer, story: tuple[Shop, Facts]
) -> None:
    near = new_retailer.with_settings(feeds={"pos_sales": FeedSettings(tolerated_rejects=10)})
    near.lake.prepare()
    near.land("pos_sales", "near.csv", sales(GOOD, rows=971) + sales(GOOD, "?", 29))
    near.land("pos_sales", "far.csv", sales(NEXT, rows=976) + sales(NEXT, "?", 24))
    assert not ingest_feed(near.lake, "pos_sales", "test").broken
    tags = {RANGE_START: str(GOOD), RANGE_END: str(NEXT)}
    result = run_in_process(near, story[0].instance, [dg.AssetKey(["clean", "sales"])], tags)
    assert result.success
    (check,) = [found for found in result.get_asset_check_evaluations() if found.check_name == "reject_budget"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["days_near_the_budget"].value == [{"day": str(GOOD), "rejected": 29, "arrived": 1000}]
