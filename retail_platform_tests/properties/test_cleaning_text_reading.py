"""Text written in ISO form reads back as the same value, and Python's own readers agree on what is a number."""

import re
from datetime import date, datetime

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.cleaning.text import as_date, as_datetime, as_number, as_whole_number

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def _read(reading: pl.Expr, texts: list[str]) -> list[object]:
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(reading.alias("value"))["value"].to_list()


TEXT = pl.col("text")


@settings(deadline=None)
@given(st.lists(st.dates()))
def test_every_date_reads_back(days: list[date]) -> None:
    assert _read(as_date(TEXT), [day.isoformat() for day in days]) == days


@settings(deadline=None)
@given(st.lists(st.datetimes()), st.sampled_from("T "))
def test_every_time_reads_back_and_so_does_its_day(times: list[datetime], separator: str) -> None:
    texts = [time.isoformat(separator) for time in times]
    assert _read(as_datetime(TEXT), texts) == times
    assert _read(as_date(TEXT), texts) == [time.date() for time in times]


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_every_finite_number_reads_back(numbers: list[float]) -> None:
    assert _read(as_number(TEXT), [repr(number) for number in numbers]) == numbers


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_every_whole_number_reads_back(numbers: list[int]) -> None:
    assert _read(as_whole_number(TEXT), [str(number) for number in numbers]) == numbers


@settings(deadline=None)
@given(st.lists(st.text(alphabet="0123456789+-.eE,_ naNifx", max_size=8)))
def test_what_is_a_number_is_decided_as_by_a_plain_pattern(texts: list[str]) -> None:
    plain = [float(t) if NUMBER.fullmatch(t) and abs(float(t)) != float("inf") else None for t in texts]
    assert _read(as_number(TEXT), texts) == plain


@settings(deadline=None)
@given(st.lists(st.text(alphabet="0123456789-T: .", max_size=12)))
def test_whatever_reads_as_a_date_starts_with_that_date(texts: list[str]) -> None:
    for text, day in zip(texts, _read(as_date(TEXT), texts), strict=True):
        assert day is None or text.startswith(str(day))
