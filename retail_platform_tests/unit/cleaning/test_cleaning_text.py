"""How text reads as a value: ISO forms and finite numbers, and nothing by guessing."""

from datetime import date, datetime

import polars as pl
import pytest

from retail_platform.cleaning.text import as_date, as_datetime, as_number, as_whole_number, read_as, trimmed


def _read(reading: pl.Expr, text: str) -> object:
    return pl.DataFrame({"text": [text]}).select(reading.alias("value")).item()


TEXT = pl.col("text")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2017-03-01", date(2017, 3, 1)),
        ("2016-02-29", date(2016, 2, 29)),
        ("2017-03-01T18:22:05", date(2017, 3, 1)),
        ("2017-03-01 00:00:00.000", date(2017, 3, 1)),
        ("2017-02-29", None),
        ("2017-3-1", None),
        ("01.03.2017", None),
        ("03/01/2017", None),
        ("20170301", None),
        ("2017-03-01T25:00:00", None),
        ("2017-03-01 morning", None),
        ("2017-03-01T18:22:05+01:00", None),
        ("\u0662\u0660\u0661\u0667-03-01", None),
        ("2017-03-01\n", None),
    ],
)
def test_a_date_is_an_iso_date_or_the_day_of_an_iso_time(text: str, day: date | None) -> None:
    assert _read(as_date(TEXT), text) == day


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2017-03-01T18:22:05", datetime(2017, 3, 1, 18, 22, 5)),
        ("2017-03-01 18:22:05.5", datetime(2017, 3, 1, 18, 22, 5, 500_000)),
        ("2017-03-01T18:22:05.123456", datetime(2017, 3, 1, 18, 22, 5, 123_456)),
        ("2017-03-01T18:22:05.123456000", datetime(2017, 3, 1, 18, 22, 5, 123_456)),
        ("2017-03-01T18:22:05.1234567", None),
        ("2017-03-01T18:22", None),
        ("2017-03-01", None),
        ("2017-03-01T24:00:00", None),
        ("2017-03-01T18:22:60", None),
        ("2017-03-01T18:22:05Z", None),
        ("2017-02-30T18:22:05", None),
    ],
)
def test_a_time_is_iso_without_a_zone_and_no_digit_is_cut_off(text: str, time: datetime | None) -> None:
    assert _read(as_datetime(TEXT), text) == time


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2.0),
        ("-0.5", -0.5),
        ("+1e3", 1000.0),
        (".5", 0.5),
        ("1,5", None),
        ("1 000", None),
        ("1_000", None),
        ("0x1A", None),
        ("NaN", None),
        ("-inf", None),
        ("Infinity", None),
        ("1e400", None),
        ("twelve", None),
    ],
)
def test_a_number_is_finite_and_has_a_point(text: str, number: float | None) -> None:
    assert _read(as_number(TEXT), text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("3.0", 3),
        ("-3.00", -3),
        ("1e2", 100),
        ("9007199254740993", 9007199254740993),
        ("3.5", None),
        ("1e300", None),
        ("99999999999999999999", None),
        ("three", None),
    ],
)
def test_a_whole_number_may_have_decimals_only_where_they_are_zero(text: str, number: int | None) -> None:
    assert _read(as_whole_number(TEXT), text) == number


@pytest.mark.parametrize(("text", "left"), [(" a b\t", "a b"), ("\u00a0\u3000", None), ("", None), ("x", "x")])
def test_blanks_around_a_value_go_and_a_blank_value_is_missing(text: str, left: str | None) -> None:
    assert _read(trimmed(TEXT), text) == left


def test_a_type_that_no_feed_has_yet_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Boolean"):
        read_as(pl.Boolean(), TEXT)
