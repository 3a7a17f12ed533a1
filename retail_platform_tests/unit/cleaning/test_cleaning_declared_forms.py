"""Feeds that declare how they write: business days on the store's clock, and reasons that name the declared form."""

from collections.abc import Mapping
from datetime import date, datetime

import polars as pl

from retail_platform.cleaning import CleanedFeed, References, clean_feed, time_zones_of
from retail_platform.cleaning.text import own_day
from retail_platform.contracts import FEEDS, TABLES
from retail_platform.contracts.feeds import RAW_TABLES
from retail_platform.settings import FeedSettings

STORES = References(store_time_zones={"BER": "Europe/Berlin", "NYC": "America/New_York"})
FROM_UTC = FeedSettings(time_zone="UTC", business_date_from="sold_at")


def _clean(form: FeedSettings, *rows: Mapping[str, str | None]) -> CleanedFeed:
    """Sales of one file, kept under the day that the reader of landing files would give them."""
    day = own_day(FEEDS["pos_sales"], form, STORES.store_time_zones)
    today = date(2017, 12, 1)
    raw = pl.DataFrame(
        [
            {"store_id": "BER", "item_id": f"I{number}", "quantity": "1", "file_id": "a" * 64, "row_number": number}
            | dict(row)
            for number, row in enumerate(rows, start=1)
        ],
        schema=RAW_TABLES["pos_sales"].polars_schema,
    ).with_columns(day.fill_null(today).alias("partition_date"), pl.lit(datetime(2017, 12, 1)).alias("ingested_at"))
    cleaned = clean_feed(
        "pos_sales", raw, references=STORES, now=datetime(2017, 12, 1), today=today, customer_key=None, form=form
    )
    TABLES["clean.sales"].validate(cleaned.clean)
    return cleaned


def _days(cleaned: CleanedFeed) -> list[tuple[date, datetime]]:
    return cleaned.clean.sort("source_row_number").select("business_date", "sold_at").rows()


def test_a_sale_in_utc_belongs_to_the_day_on_the_stores_clock() -> None:
    local = {
        # In Berlin the clock went from 02:00 to 03:00 on 26 March 2017, at 01:00 UTC.
        ("BER", "2017-03-25T22:59:59"): datetime(2017, 3, 25, 23, 59, 59),
        ("BER", "2017-03-25T23:00:00"): datetime(2017, 3, 26, 0, 0),
        ("BER", "2017-03-26T00:59:59"): datetime(2017, 3, 26, 1, 59, 59),
        ("BER", "2017-03-26T01:00:00"): datetime(2017, 3, 26, 3, 0),
        ("BER", "2017-03-26T21:59:59"): datetime(2017, 3, 26, 23, 59, 59),
        ("BER", "2017-03-26T22:00:00"): datetime(2017, 3, 27, 0, 0),
        # And from 03:00 back to 02:00 on 29 October, at 01:00 UTC.
        ("BER", "2017-10-28T22:00:00"): datetime(2017, 10, 29, 0, 0),
        ("BER", "2017-10-29T00:30:00"): datetime(2017, 10, 29, 2, 30),
        ("BER", "2017-10-29T01:30:00"): datetime(2017, 10, 29, 2, 30),
        ("BER", "2017-10-29T22:59:59"): datetime(2017, 10, 29, 23, 59, 59),
        ("BER", "2017-10-29T23:00:00"): datetime(2017, 10, 30, 0, 0),
        ("NYC", "2017-03-12T04:59:59"): datetime(2017, 3, 11, 23, 59, 59),
        ("NYC", "2017-03-13T03:59:59"): datetime(2017, 3, 12, 23, 59, 59),
        ("NYC", "2017-11-05T04:00:00"): datetime(2017, 11, 5, 0, 0),
        ("NYC", "2017-11-06T04:59:59"): datetime(2017, 11, 5, 23, 59, 59),
    }
    cleaned = _clean(FROM_UTC, *({"store_id": store, "sold_at": sold_at} for store, sold_at in local))
    assert _days(cleaned) == [(time.date(), time) for time in local.values()]


def test_every_offset_of_one_moment_gives_the_same_local_time() -> None:
    form = FeedSettings(time_zone="offset", business_date_from="sold_at")
    texts = ["2017-10-29T02:30:00+02:00", "2017-10-29 00:30:00Z", "2017-10-28T20:30:00.000-0400"]
    assert (
        _days(_clean(form, *({"sold_at": text} for text in texts)))
        == [(date(2017, 10, 29), datetime(2017, 10, 29, 2, 30))] * 3
    )


def test_a_time_that_the_declared_clock_shows_twice_or_never_is_rejected_with_the_night() -> None:
    form = FeedSettings(time_zone="Europe/Berlin", business_date_from="sold_at")
    twice, never = "2017-10-29T02:30:00", "2017-03-26T02:30:00"
    cleaned = _clean(form, {"store_id": "NYC", "sold_at": twice}, {"store_id": "NYC", "sold_at": never})
    for text, reasons in zip((twice, never), cleaned.rejected["reasons"].to_list(), strict=True):
        assert f"sold_at: '{text}' is no one moment in Europe/Berlin, whose clock was changed that night" in reasons


def test_in_a_store_of_the_declared_zone_the_doubled_hour_is_kept_as_it_stands() -> None:
    form = FeedSettings(time_zone="Europe/Berlin", business_date_from="sold_at")
    cleaned = _clean(form, {"sold_at": "2017-10-29T02:30:00"}, {"sold_at": "2017-03-26T02:30:00"})
    assert _days(cleaned) == [(date(2017, 10, 29), datetime(2017, 10, 29, 2, 30))]
    assert cleaned.rejected["row_number"].to_list() == [2]


def test_a_sale_of_a_store_without_a_time_zone_is_rejected_until_the_store_has_one() -> None:
    cleaned = _clean(FROM_UTC, {"store_id": "LON", "sold_at": "2017-03-25T22:59:59"})
    assert "store_id: the time zone of 'LON' is not in clean.stores" in cleaned.rejected["reasons"].to_list()[0]


def test_times_without_a_declared_zone_are_the_stores_own() -> None:
    cleaned = _clean(FeedSettings(business_date_from="sold_at"), {"sold_at": "2017-03-26T02:30:00"})
    assert _days(cleaned) == [(date(2017, 3, 26), datetime(2017, 3, 26, 2, 30))]


def test_numbers_and_dates_are_read_in_the_declared_form_and_in_no_other() -> None:
    form = FeedSettings(decimal=",", thousands=".", date_format="%d.%m.%Y")
    cleaned = _clean(
        form,
        {"business_date": "01.03.2017", "sales_amount": "1.234,56", "quantity": "2"},
        {"business_date": "2017-03-01", "sales_amount": "1.5", "quantity": "1,5,0"},
    )
    assert cleaned.clean.select("business_date", "sales_amount").rows() == [(date(2017, 3, 1), 1234.56)]
    reasons = cleaned.rejected["reasons"].to_list()[0]
    assert "business_date: '2017-03-01' is not a date (%d.%m.%Y)" in reasons
    assert "sales_amount: '1.5' is not a number with the decimal sign ','" in reasons
    assert "quantity: '1,5,0' is not a number with the decimal sign ','" in reasons


def test_a_name_that_is_no_time_zone_counts_as_none() -> None:
    stores = pl.DataFrame({"store_id": ["A", "B", "C"], "time_zone": ["Europe/Berlin", "Mars/Base", None]})
    assert time_zones_of(stores) == {"A": "Europe/Berlin"}
