"""Up to which day sales are known: late stores and stray dates are told from days without sales."""

from collections.abc import Iterable
from datetime import date, timedelta

import polars as pl

from retail_platform.features.reporting import LATE_DAYS, UNBROKEN_DAYS, last_reported_day, late_stores

FIRST = date(2017, 3, 1)


def selling(stores: dict[str, Iterable[int]]) -> pl.DataFrame:
    """Stores and the numbers, from 0, of the days on which they sold."""
    rows = [(store, FIRST + timedelta(days=number)) for store, days in stores.items() for number in days]
    return pl.DataFrame(rows, schema={"store_id": pl.String, "business_date": pl.Date}, orient="row")


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def test_without_sales_no_day_is_known() -> None:
    assert last_reported_day(selling({})) is None


def test_the_last_day_counts_where_all_stores_sold_on_it() -> None:
    assert last_reported_day(selling({store: range(40) for store in "ABCD"})) == day(39)


def test_a_stray_line_far_ahead_does_not_move_the_day() -> None:
    assert last_reported_day(selling({"A": [*range(40), 300], **{store: range(40) for store in "BCD"}})) == day(39)


def test_half_of_the_stores_are_enough_and_fewer_are_not() -> None:
    half = {"A": range(41), "B": range(41), "C": range(40), "D": range(40)}
    fewer = {"A": range(41), "B": range(40), "C": range(40), "D": range(40)}
    assert last_reported_day(selling(half)) == day(40)
    assert last_reported_day(selling(fewer)) == day(39)


def test_a_retailer_that_grows_and_a_day_on_which_all_are_closed_do_not_hold_the_day_back() -> None:
    grows = {"A": range(40), "B": range(20, 40), "C": range(39, 40)}
    closed = {store: [*range(30), *range(31, 40)] for store in "ABCD"}
    assert last_reported_day(selling(grows)) == day(39)
    assert last_reported_day(selling(closed)) == day(39)


def test_a_store_that_sold_daily_and_stops_before_the_last_day_is_late() -> None:
    days = selling({"A": range(40), "B": range(38), "C": range(40 - UNBROKEN_DAYS - 1, 39)})
    assert late_stores(days, day(39)).rows() == [("B", day(37)), ("C", day(38))]


def test_a_store_that_sells_now_and_then_or_has_been_silent_for_long_is_not_late() -> None:
    now_and_then = [number for number in range(38) if number % 5]
    days = selling({"A": range(40), "B": now_and_then, "C": range(40 - LATE_DAYS - 1)})
    assert late_stores(days, day(39)).is_empty()


def test_sales_after_the_last_day_do_not_make_a_store_punctual() -> None:
    days = selling({"A": range(40), "B": [*range(38), 60]})
    assert late_stores(days, day(39)).rows() == [("B", day(37))]
