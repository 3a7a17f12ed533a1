"""How the text of a landing file reads as a date, a time, a number or a whole number, in the form its feed declares.

Here: one expression per type, null where the text cannot be read that way; the day that a raw row belongs to; and
the way back, from a typed value to text of the same form. Not here: whose clock a time is (`time_zones.py`), and
what becomes of a row that cannot be read (`reasons.py`). The reader of landing files uses `own_day` for the partition
of a row, so that a row's partition and its date never disagree.

Where no form is declared, it is ISO. Nothing is guessed: 03/04/2017 could be two days, and 1,5 two numbers.
"""

import re
from collections.abc import Callable, Mapping

import polars as pl

from retail_platform.cleaning.time_zones import store_time
from retail_platform.contracts.distinct import each_value_once
from retail_platform.contracts.feeds import Feed
from retail_platform.settings import OFFSET_IN_TEXT, FeedSettings

ISO = FeedSettings()
"""The form of a feed that declares none."""

_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_HOUR, _MINUTE = "([01][0-9]|2[0-3])", "[0-5][0-9]"
# The tables keep microseconds; further digits are read only where they are zeros, so that nothing is cut off.
_DATETIME = rf"^{_DAY}[T ]{_HOUR}:{_MINUTE}:{_MINUTE}(\.[0-9]{{1,6}}0*)?$"
_LETTERS_TO_THE_SECOND = len("2017-03-01T18:22:05")
_OFFSET = f"(Z|[+-]{_HOUR}:?{_MINUTE})$"
_LARGEST_EXACT_WHOLE = 2.0**53


def trimmed(text: pl.Expr) -> pl.Expr:
    """`text` without blanks around it; null where nothing is left."""
    without_blanks = text.str.strip_chars()
    return pl.when(without_blanks != "").then(without_blanks)


def needs_trimming(text: pl.Expr) -> pl.Expr:
    """Whether `trimmed` changes it; never so where it is null."""
    letters = text.str.len_bytes()
    return ((letters == 0) | (text.str.strip_chars().str.len_bytes() != letters)).fill_null(value=False)


def as_date(text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """The day of a date, or of a date and time without a zone."""

    def reading(text: pl.Expr) -> pl.Expr:
        return pl.coalesce(_plain_date(text, form), _plain_datetime(text, form).dt.date())

    return each_value_once(text, reading, pl.Date())


def has_time_of_day(text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """True where `text` is a date and time rather than a date."""

    def reading(text: pl.Expr) -> pl.Expr:
        return _plain_date(text, form).is_null() & _plain_datetime(text, form).is_not_null()

    return each_value_once(text, reading, pl.Boolean())


def as_datetime(text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """A date and time as it is written; in UTC where each text of the feed ends with its offset from it."""
    if form.time_zone != OFFSET_IN_TEXT:
        return _plain_datetime(text, form)
    offset = text.str.extract(_OFFSET)
    hours, minutes = offset.str.slice(1, 2).cast(pl.Int64), offset.str.tail(2).cast(pl.Int64)
    ahead = pl.when(offset.str.starts_with("-")).then(-1).otherwise(1) * pl.duration(hours=hours, minutes=minutes)
    written = _plain_datetime(text.str.replace(_OFFSET, "").str.strip_chars_end(" "), form)
    return pl.when(offset == "Z").then(written).otherwise(written - ahead)


def as_number(text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """A finite number with the feed's decimal sign, exponent allowed, with or without its thousands separator."""
    if (form.decimal, form.thousands) == (ISO.decimal, ISO.thousands):
        return _finite(text.cast(pl.Float64, strict=False))
    pattern = _number_pattern(form)

    def reading(text: pl.Expr) -> pl.Expr:
        plain = text.str.replace_all(form.thousands, "", literal=True) if form.thousands else text
        number = plain.str.replace(form.decimal, ".", literal=True).cast(pl.Float64, strict=False)
        return pl.when(text.str.contains(pattern)).then(_finite(number))

    return each_value_once(text, reading, pl.Float64())


def as_whole_number(text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """A whole number, also where it is written with decimals that are zero (3.0)."""

    def reading(text: pl.Expr) -> pl.Expr:
        number = as_number(text, form)
        exact = (number == number.round()) & (number.abs() <= _LARGEST_EXACT_WHOLE)
        return pl.coalesce(text.cast(pl.Int64, strict=False), pl.when(exact).then(number).cast(pl.Int64, strict=False))

    return each_value_once(text, reading, pl.Int64())


def is_decimal_form(text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """True where a whole number is written in another form than digits alone, such as 3.0."""

    def reading(text: pl.Expr) -> pl.Expr:
        return text.cast(pl.Int64, strict=False).is_null() & as_whole_number(text, form).is_not_null()

    return each_value_once(text, reading, pl.Boolean())


def read_as(dtype: pl.DataType, text: pl.Expr, form: FeedSettings = ISO) -> pl.Expr:
    """`text` as a value of a feed column's declared type; a time as it is written, whosever clock it is."""
    match dtype:
        case pl.String():
            return text
        case pl.Date():
            return as_date(text, form)
        case pl.Datetime():
            return as_datetime(text, form)
        case pl.Float64():
            return as_number(text, form)
        case pl.Int64():
            return as_whole_number(text, form)
    raise ValueError(f"no reading of text as {dtype} is known; add it to cleaning/text.py")


def own_day(feed: Feed, form: FeedSettings, store_time_zones: Mapping[str, str]) -> pl.Expr:
    """The day of a raw row of a feed with daily partitions, null where its text does not tell one.

    Where the feed declares that its day comes from a time, it is the day on the store's clock; `store_time_zones`
    are the IANA time zones by store. Raises `ValueError` for a feed that has no day.
    """
    if feed.date_column is None:
        raise ValueError(f"feed {feed.name} has no daily partitions")
    if form.business_date_from is None:
        return as_date(trimmed(pl.col(feed.date_column)), form)
    time = as_datetime(trimmed(pl.col(form.business_date_from)), form)
    return store_time(
        time, form.time_zone, store_zone(trimmed(pl.col("store_id")), store_time_zones), store_time_zones.values()
    ).dt.date()


def store_zone(store_id: pl.Expr, store_time_zones: Mapping[str, str]) -> pl.Expr:
    """The time zone of a store, null where it is not known."""
    return store_id.replace_strict(store_time_zones, default=None, return_dtype=pl.String)


def as_text(value: pl.Expr, dtype: pl.DataType, form: FeedSettings = ISO) -> pl.Expr:
    """A typed value as text in the feed's form; in ISO form where the feed's would not read back as the same value."""
    match dtype:
        case pl.Date():
            return _reading_back(value, "%Y-%m-%d", form.date_format, lambda text: as_date(text, form))
        case pl.Datetime(time_zone=None):
            iso = "%Y-%m-%dT%H:%M:%S%.f"
            return _reading_back(value, iso, form.datetime_format, lambda text: as_datetime(text, form))
        case pl.Datetime():
            return value.dt.to_string("%Y-%m-%dT%H:%M:%S%.f%:z")
        case _ if dtype.is_float() or dtype.is_decimal():
            text = value.cast(pl.String)
            return text if form.decimal == "." else text.str.replace(".", form.decimal, literal=True)
    return value.cast(pl.String)


def expected(dtype: pl.DataType, form: FeedSettings = ISO) -> str:
    """What a type's text must be, in the words of a reason."""
    number = "number" + (f" with the decimal sign {form.decimal!r}" if form.decimal != ISO.decimal else "")
    match dtype:
        case pl.Date():
            return f"a date ({form.date_format or 'yyyy-mm-dd'})"
        case pl.Datetime():
            offset = " and its offset from UTC" if form.time_zone == OFFSET_IN_TEXT else ""
            return f"a date and time ({form.datetime_format or 'yyyy-mm-ddThh:mm:ss'}){offset}"
        case pl.Int64():
            return f"a whole {number}"
    return f"a {number}"


def _reading_back(value: pl.Expr, iso: str, declared: str | None, reading: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    if declared is None:
        return value.dt.to_string(iso)
    text = value.dt.to_string(declared)
    return pl.when(reading(text) == value).then(text).otherwise(value.dt.to_string(iso))


def _plain_date(text: pl.Expr, form: FeedSettings) -> pl.Expr:
    declared = form.date_format or "%Y-%m-%d"
    day = text.str.to_date(declared, strict=False)
    # Parsers let blanks, signs and missing zeros pass; the text that the day is written as does not.
    return pl.when(day.dt.to_string(declared) == text).then(day)


def _plain_datetime(text: pl.Expr, form: FeedSettings) -> pl.Expr:
    if form.datetime_format:
        time = text.str.to_datetime(form.datetime_format, time_unit="us", strict=False)
        return pl.when(time.dt.to_string(form.datetime_format) == text).then(time)
    plain = text.str.replace("T", " ", literal=True)
    # Reading fractions takes four times as long, also where there are none.
    with_fraction = pl.when(text.str.len_bytes() > _LETTERS_TO_THE_SECOND).then(plain)
    time = pl.coalesce(
        plain.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False),
        with_fraction.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False),
    )
    return pl.when(text.str.contains(_DATETIME)).then(time)


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)


def _number_pattern(form: FeedSettings) -> str:
    point = re.escape(form.decimal)
    plain = rf"([0-9]+({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"
    if not form.thousands:
        return f"^[+-]?{plain}$"
    grouped = rf"[1-9][0-9]{{0,2}}({re.escape(form.thousands)}[0-9]{{3}})+({point}[0-9]*)?"
    return f"^[+-]?({plain}|{grouped})$"
