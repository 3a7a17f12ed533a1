"""How the text of a landing file reads as a date, a time, a number or a whole number.

Here: one expression per type, null where the text cannot be read that way. Not here: what becomes of a row
that cannot be read (`reasons.py`). The reader of landing files uses `as_date` for the partition of a row, so that a
row's partition and its date never disagree.

ISO forms only. Nothing is guessed: 03/04/2017 could be two days, and 1,5 two numbers.
"""

import polars as pl

_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
# The tables keep microseconds; further digits are read only where they are zeros, so that nothing is cut off.
_TIME_OF_DAY = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6}0*)?"
_DATE = f"^{_DAY}$"
_DATETIME = f"^{_DAY}[T ]{_TIME_OF_DAY}$"
_LARGEST_EXACT_WHOLE = 2.0**53

FORMS = {
    pl.Date: "a date (yyyy-mm-dd)",
    pl.Datetime: "a date and time (yyyy-mm-ddThh:mm:ss)",
    pl.Float64: "a number",
    pl.Int64: "a whole number",
}
"""What each type expects, in the words of a reason."""


def trimmed(text: pl.Expr) -> pl.Expr:
    """`text` without blanks around it; null where nothing is left."""
    without_blanks = text.str.strip_chars()
    return pl.when(without_blanks != "").then(without_blanks)


def as_date(text: pl.Expr) -> pl.Expr:
    """The day of an ISO date, or of an ISO date and time."""
    day = text.str.head(10).str.to_date("%Y-%m-%d", strict=False)
    return pl.when(text.str.contains(f"{_DATE}|{_DATETIME}")).then(day)


def has_time_of_day(text: pl.Expr) -> pl.Expr:
    """True where `text` is a date and time rather than a date."""
    return text.str.contains(_DATETIME)


def as_datetime(text: pl.Expr) -> pl.Expr:
    """An ISO date and time separated by T or a blank, fractions of a second optional, without a time zone."""
    plain = text.str.replace("T", " ", literal=True)
    time = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    return pl.when(text.str.contains(_DATETIME)).then(time)


def as_number(text: pl.Expr) -> pl.Expr:
    """A finite decimal number with a point, exponent allowed."""
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def as_whole_number(text: pl.Expr) -> pl.Expr:
    """A whole number, also where it is written with decimals that are zero (3.0)."""
    number = as_number(text)
    exact = (number == number.round()) & (number.abs() <= _LARGEST_EXACT_WHOLE)
    return pl.coalesce(text.cast(pl.Int64, strict=False), pl.when(exact).then(number).cast(pl.Int64, strict=False))


def is_decimal_form(text: pl.Expr) -> pl.Expr:
    """True where a whole number is written in another form than digits alone, such as 3.0."""
    return text.cast(pl.Int64, strict=False).is_null() & as_whole_number(text).is_not_null()


def read_as(dtype: pl.DataType, text: pl.Expr) -> pl.Expr:
    """`text` as a value of a feed column's declared type."""
    match dtype:
        case pl.String():
            return text
        case pl.Date():
            return as_date(text)
        case pl.Datetime():
            return as_datetime(text)
        case pl.Float64():
            return as_number(text)
        case pl.Int64():
            return as_whole_number(text)
    raise ValueError(f"no reading of text as {dtype} is known; add it to cleaning/text.py")
