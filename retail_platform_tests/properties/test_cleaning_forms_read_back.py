"""Whatever form a feed declares: values written in it read back, other forms do not, and clocks agree with Python's."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.cleaning.text import as_date, as_datetime, as_number, as_text, as_whole_number, read_as
from retail_platform.cleaning.time_zones import store_time
from retail_platform.settings import FeedSettings

LAW = settings(max_examples=20, deadline=None)
TEXT = pl.col("text")
DATE_FORMATS = ["%d.%m.%Y", "%-d.%-m.%Y", "%m/%d/%Y", "%Y%m%d", "%d %b %Y", "%d/%m/%y"]
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
THIS_CENTURY = st.dates(date(2001, 1, 1), date(2060, 12, 31))
TIMES = st.datetimes(datetime(2001, 1, 1), datetime(2030, 12, 31))
# Half of the moments lie near a change of a clock.
MOMENTS = st.one_of(
    TIMES,
    st.sampled_from([datetime(2017, 3, 26, 1), datetime(2017, 10, 29, 1), datetime(2017, 11, 5, 6)]).flatmap(
        lambda change: st.integers(-150, 150).map(lambda minutes: change + timedelta(minutes=minutes))
    ),
)
POINTS = st.sampled_from([(".", ""), (",", ""), (",", "."), (",", " "), (".", ","), (".", "'"), (",", "\u202f")])


def _read(reading: pl.Expr, texts: list[str]) -> list[object]:
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(reading.alias("value"))["value"].to_list()


@LAW
@given(st.lists(THIS_CENTURY), st.sampled_from(DATE_FORMATS))
def test_every_date_reads_back_from_a_declared_form(days: list[date], form: str) -> None:
    assert _read(as_date(TEXT, FeedSettings(date_format=form)), [day.strftime(form) for day in days]) == days


@LAW
@given(st.lists(st.text(alphabet="0123456789./- JanMr", max_size=11)), st.sampled_from(DATE_FORMATS))
def test_a_text_that_reads_as_a_date_is_what_that_date_is_written_as(texts: list[str], form: str) -> None:
    for text, day in zip(texts, _read(as_date(TEXT, FeedSettings(date_format=form)), texts), strict=True):
        assert day is None or day.strftime(form) == text


@LAW
@given(st.lists(TIMES.map(lambda time: time.replace(microsecond=0))))
def test_every_time_reads_back_from_a_declared_form(times: list[datetime]) -> None:
    form = FeedSettings(date_format="%d.%m.%Y", datetime_format="%d.%m.%Y %H:%M:%S")
    texts = [time.strftime("%d.%m.%Y %H:%M:%S") for time in times]
    assert _read(as_datetime(TEXT, form), texts) == times
    assert _read(as_date(TEXT, form), texts) == [time.date() for time in times]


@LAW
@given(st.lists(st.tuples(TIMES, st.integers(-14 * 60, 14 * 60))), st.sampled_from(["{}", "{} "]))
def test_a_time_with_its_offset_is_that_moment(times: list[tuple[datetime, int]], template: str) -> None:
    texts, moments = [], []
    for local, minutes in times:
        sign, ahead = "-" if minutes < 0 else "+", abs(minutes)
        texts.append(f"{template.format(local.isoformat())}{sign}{ahead // 60:02}:{ahead % 60:02}")
        moments.append(local - timedelta(minutes=minutes))
    assert _read(as_datetime(TEXT, FeedSettings(time_zone="offset")), texts) == moments


@LAW
@given(st.lists(st.decimals(-(10**9), 10**9, places=3)), POINTS, st.sampled_from(["{:,.3f}", "{:.3f}"]))
def test_every_number_reads_back_with_and_without_separators(
    numbers: list[Decimal], points: tuple[str, str], template: str
) -> None:
    decimal, thousands = points
    texts = [template.format(n) if thousands else f"{n:.3f}" for n in numbers]
    signs = str.maketrans({",": thousands, ".": decimal})
    form = FeedSettings(decimal=decimal, thousands=thousands)
    assert _read(as_number(TEXT, form), [text.translate(signs) for text in texts]) == [float(n) for n in numbers]


def _plain_number(text: str, decimal: str, thousands: str) -> float | None:
    """The slow reference: one sign, digits in whole groups of three, one decimal sign, an exponent."""
    body = text[1:] if text[:1] in ("+", "-") else text
    mantissa, exponent, power = body.lower().partition("e")
    whole, _, fraction = mantissa.partition(decimal)
    groups = whole.split(thousands) if thousands else [whole]
    if len(groups) > 1 and (
        exponent or groups[0][:1] == "0" or not 1 <= len(groups[0]) <= 3 or any(len(group) != 3 for group in groups[1:])
    ):
        return None
    if not (whole or fraction) or not all(part == "" or part.isdecimal() for part in ["".join(groups), fraction]):
        return None
    if exponent and not power.lstrip("+-").isdecimal():
        return None
    try:
        number = float(f"{text[: len(text) - len(body)]}{''.join(groups)}.{fraction}{exponent}{power}")
    except ValueError:
        return None
    return number if abs(number) != float("inf") else None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="0125+-.,' e", max_size=9), max_size=40), POINTS)
def test_what_is_a_number_in_a_declared_form_is_decided_as_by_a_slow_reference(
    texts: list[str], points: tuple[str, str]
) -> None:
    form = FeedSettings(decimal=points[0], thousands=points[1])
    assert _read(as_number(TEXT, form), texts) == [_plain_number(text, *points) for text in texts]


@LAW
@given(st.lists(st.integers(-(10**12), 10**12)))
def test_every_whole_number_reads_back_with_separators(numbers: list[int]) -> None:
    texts = [f"{number:,}".replace(",", ".") for number in numbers]
    assert _read(as_whole_number(TEXT, FeedSettings(decimal=",", thousands=".")), texts) == numbers


@LAW
@given(
    st.lists(st.one_of(THIS_CENTURY, st.dates())),
    st.lists(st.one_of(TIMES, st.datetimes())),
    st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_typed_values_written_in_a_declared_form_are_read_as_the_same_or_refused_and_never_as_others(
    days: list[date], times: list[datetime], numbers: list[float]
) -> None:
    form = FeedSettings(decimal=",", thousands=".", date_format="%d.%m.%y", datetime_format="%d.%m.%Y %H:%M")
    for values, dtype in ((days, pl.Date()), (times, pl.Datetime("us")), (numbers, pl.Float64())):
        frame = pl.DataFrame({"value": values}, schema={"value": dtype})
        back = frame.select(read_as(dtype, as_text(pl.col("value"), dtype, form), form).alias("back"))["back"].to_list()
        refused = {float: (), date: (None,), datetime: (None,)}[type(values[0])] if values else ()
        assert all(b == value or b in refused for b, value in zip(back, values, strict=True))


def _by_python(written: datetime, source: ZoneInfo, store: ZoneInfo) -> datetime | None:
    """The slow reference for one time: null where the source's clock shows it twice or never."""
    readings = {written.replace(tzinfo=source, fold=fold).astimezone(UTC) for fold in (0, 1)}
    exist = {moment for moment in readings if moment.astimezone(source).replace(tzinfo=None) == written}
    if source == store:
        return written if exist else None
    return exist.pop().astimezone(store).replace(tzinfo=None) if len(exist) == 1 else None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(MOMENTS, st.sampled_from(ZONES)), max_size=30), st.sampled_from(ZONES))
def test_the_stores_clock_shows_what_pythons_does(times: list[tuple[datetime, str]], source: str) -> None:
    frame = pl.DataFrame(times, schema={"time": pl.Datetime("us"), "zone": pl.String}, orient="row")
    shown = frame.select(store_time(pl.col("time"), source, pl.col("zone"), ZONES).alias("shown"))["shown"]
    assert shown.to_list() == [_by_python(time, ZoneInfo(source), ZoneInfo(zone)) for time, zone in times]
