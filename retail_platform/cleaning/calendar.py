"""Public holidays, and the calendar that they make together with the events of the feed.

Here: rows of `clean.calendar` that no file brought. Not here: the cleaning of the feed (`clean.py`).
"""

import polars as pl

from retail_platform.cleaning.feeds import EVERYWHERE
from retail_platform.contracts import TABLES


def public_holidays(country: str, first_year: int, last_year: int) -> pl.DataFrame:
    """Nationwide public holidays as rows of `clean.calendar`, of the type 'national' and without a source file.

    `country` is an ISO 3166 code. Days on which a holiday is observed because it falls on a weekend are rows of
    their own, and two holidays of one day are two rows. Raises `ValueError` for a country of which no holidays are
    known.
    """
    import holidays

    try:
        known = holidays.country_holidays(country, years=range(first_year, last_year + 1))
    except NotImplementedError:
        raise ValueError(
            f"no public holidays are known for country {country!r}; set country in retail.toml to an ISO 3166 code, "
            "such as US"
        ) from None
    days = [(day, name) for day in known if first_year <= day.year <= last_year for name in known.get_list(day)]
    contract = TABLES["clean.calendar"]
    return (
        pl.DataFrame(days, schema={"date": pl.Date, "event_name": pl.String}, orient="row")
        .unique()
        .select(
            "date",
            pl.lit(EVERYWHERE).alias("region"),
            "event_name",
            pl.lit("national").alias("event_type"),
            pl.lit(None, pl.String).alias("source_file_id"),
            pl.lit(None, pl.Int64).alias("source_row_number"),
        )
        .select(contract.polars_schema.names())
        .sort(contract.grain)
    )


def merge_calendar(events: pl.DataFrame, holidays: pl.DataFrame) -> pl.DataFrame:
    """One `clean.calendar` of both; an event takes the place of a holiday of the same day, region and name."""
    grain = TABLES["clean.calendar"].grain
    return pl.concat([events, holidays.join(events, on=grain, how="anti")]).sort(grain)
