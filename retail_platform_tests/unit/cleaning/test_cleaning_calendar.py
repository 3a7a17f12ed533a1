"""Public holidays, and how the feed's events take precedence over them."""

from datetime import date

import polars as pl
import pytest

from retail_platform.cleaning import merge_calendar, public_holidays
from retail_platform.contracts import TABLES

CALENDAR = TABLES["clean.calendar"]


def _event(day: date, name: str, region: str = "*") -> pl.DataFrame:
    row = {"date": day, "region": region, "event_name": name, "event_type": "own", "source_file_id": "a" * 64}
    return pl.DataFrame([row | {"source_row_number": 1}], schema=CALENDAR.polars_schema)


def test_the_holidays_of_a_country_keep_the_contract_and_lie_in_the_years_asked_for() -> None:
    holidays = CALENDAR.validate(public_holidays("US", 2016, 2017))
    assert holidays["date"].dt.year().unique().sort().to_list() == [2016, 2017]
    assert holidays.filter(date=date(2017, 11, 23))["event_name"].to_list() == ["Thanksgiving Day"]
    assert set(holidays["region"]) == {"*"}
    assert holidays["source_file_id"].null_count() == holidays.height


def test_two_holidays_of_one_day_are_two_rows() -> None:
    # In 2008 Ascension fell on the first of May.
    assert public_holidays("NO", 2008, 2008).filter(date=date(2008, 5, 1)).height == 2


def test_an_unknown_country_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(ValueError, match=r"'XX'; set country in retail\.toml"):
        public_holidays("XX", 2017, 2017)


def test_an_event_of_the_feed_takes_the_place_of_the_same_holiday_only() -> None:
    thanksgiving = date(2017, 11, 23)
    holidays = public_holidays("US", 2017, 2017)
    events = pl.concat([_event(thanksgiving, "Thanksgiving Day"), _event(thanksgiving, "Thanksgiving Day", "CA")])
    merged = CALENDAR.validate(merge_calendar(events, holidays))
    assert merged.height == holidays.height + 1
    assert merged.filter(date=thanksgiving)["event_type"].to_list() == ["own", "own"]
