"""M5 gives the same landing files from either form, and says what is missing."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from retail_platform.sources.landing import LandingError
from retail_platform.sources.m5 import load_m5

FIRST_DAY = date(2015, 12, 26)  # a Saturday, the first day of an M5 week
DAYS = [FIRST_DAY + timedelta(days=n) for n in range(23)]
SERIES = [("CA_1", "FOODS_1_001"), ("CA_1", "HOBBIES_1_001"), ("TX_1", "FOODS_1_001")]
LAST_KNOWN = 16
# Weekly prices: FOODS in CA_1 changes in the third week; HOBBIES is off sale in the second.
PRICES = [
    ("CA_1", "FOODS_1_001", 11548, 2.0),
    ("CA_1", "FOODS_1_001", 11549, 2.0),
    ("CA_1", "FOODS_1_001", 11550, 2.24),
    ("CA_1", "FOODS_1_001", 11551, 2.24),
    ("CA_1", "HOBBIES_1_001", 11548, 5.0),
    ("CA_1", "HOBBIES_1_001", 11550, 5.0),
    ("TX_1", "FOODS_1_001", 11549, 2.0),
]


def units(series: int, day: int) -> int:
    return (series + 1) * day % 4 if (series, day) != (0, 5) else 0


def calendar() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": [day.isoformat() for day in DAYS],
            "wm_yr_wk": [11548 + n // 7 for n in range(len(DAYS))],
            "d": [f"d_{n + 1}" for n in range(len(DAYS))],
            "event_name_1": ["NewYear" if day == date(2016, 1, 1) else None for day in DAYS],
            "event_type_1": ["National" if day == date(2016, 1, 1) else None for day in DAYS],
            "event_name_2": ["Parade" if day == date(2016, 1, 1) else None for day in DAYS],
            "event_type_2": ["Cultural" if day == date(2016, 1, 1) else None for day in DAYS],
            "snap_CA": [int(day == date(2016, 1, 2)) for day in DAYS],
            "snap_TX": [int(day == date(2016, 1, 2)) for day in DAYS],
            "snap_WI": [1 for _ in DAYS],
        }
    )


def prices() -> pl.DataFrame:
    return pl.DataFrame(PRICES, schema=["store_id", "item_id", "wm_yr_wk", "sell_price"], orient="row")


def identity(store: str, item: str) -> dict[str, str]:
    return {
        "item_id": item,
        "dept_id": item[:-4],
        "cat_id": item.split("_", maxsplit=1)[0],
        "store_id": store,
        "state_id": store[:2],
    }


def write_csv_form(folder: Path, sales_file: str = "sales_train_evaluation.csv") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        {"id": f"{item}_{store}_evaluation", **identity(store, item)}
        | {f"d_{day + 1}": units(number, day) for day in range(LAST_KNOWN)}
        for number, (store, item) in enumerate(SERIES)
    ]
    pl.DataFrame(rows).write_csv(folder / sales_file)
    prices().write_csv(folder / "sell_prices.csv")
    calendar().write_csv(folder / "calendar.csv")
    return folder


def write_parquet_form(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        identity(store, item) | {"date": DAYS[day], "sales": units(number, day)}
        for day in reversed(range(LAST_KNOWN))
        for number, (store, item) in enumerate(SERIES)
    ]
    pl.DataFrame(rows).with_columns(pl.col("sales").cast(pl.Int16)).write_parquet(folder / "sales_daily.parquet")
    prices().reverse().write_parquet(folder / "sell_prices.parquet")
    calendar().write_parquet(folder / "calendar.parquet")
    return folder


def content(landing: Path) -> dict[str, bytes]:
    return {str(p.relative_to(landing)): p.read_bytes() for p in sorted(landing.rglob("*")) if p.is_file()}


def test_both_forms_give_the_same_landing_files(tmp_path: Path) -> None:
    from_csv = load_m5(tmp_path / "a", write_csv_form(tmp_path / "csv"))
    from_parquet = load_m5(tmp_path / "b", write_parquet_form(tmp_path / "parquet"))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert from_csv.notes == from_parquet.notes
    assert from_csv.rows_by_feed() == from_parquet.rows_by_feed()


def test_sales_are_the_days_with_units_split_by_year(tmp_path: Path) -> None:
    load_m5(tmp_path / "landing", write_csv_form(tmp_path / "csv"))
    expected = [
        (DAYS[day], store, item, float(units(number, day)))
        for day in range(LAST_KNOWN)
        for number, (store, item) in enumerate(SERIES)
        if units(number, day) > 0
    ]
    for year in (2015, 2016):
        rows = pl.read_parquet(tmp_path / f"landing/pos_sales/m5-{year}.parquet").rows()
        assert rows == [row for row in expected if row[0].year == year]


def test_equal_prices_of_successive_weeks_are_one_period_and_gaps_stay_gaps(tmp_path: Path) -> None:
    load_m5(tmp_path / "landing", write_csv_form(tmp_path / "csv"))
    assert pl.read_parquet(tmp_path / "landing/prices/m5.parquet").rows() == [
        ("CA_1", "FOODS_1_001", date(2015, 12, 26), date(2016, 1, 8), 2.0),
        # The calendar ends within the last week; the price holds to its Friday all the same.
        ("CA_1", "FOODS_1_001", date(2016, 1, 9), date(2016, 1, 22), 2.24),
        ("CA_1", "HOBBIES_1_001", date(2015, 12, 26), date(2016, 1, 1), 5.0),
        ("CA_1", "HOBBIES_1_001", date(2016, 1, 9), date(2016, 1, 15), 5.0),
        ("TX_1", "FOODS_1_001", date(2016, 1, 2), date(2016, 1, 8), 2.0),
    ]


def test_masters_and_events_come_from_the_ids_and_the_calendar(tmp_path: Path) -> None:
    load_m5(tmp_path / "landing", write_csv_form(tmp_path / "csv"))
    assert pl.read_csv(tmp_path / "landing/items/m5.csv").rows() == [
        ("FOODS_1_001", "FOODS_1", "FOODS"),
        ("HOBBIES_1_001", "HOBBIES_1", "HOBBIES"),
    ]
    assert pl.read_csv(tmp_path / "landing/stores/m5.csv").rows() == [
        ("CA_1", "CA", "America/Los_Angeles"),
        ("TX_1", "TX", "America/Chicago"),
    ]
    assert pl.read_csv(tmp_path / "landing/calendar_events/m5.csv").rows() == [
        ("2016-01-01", "NewYear", "national", None),
        ("2016-01-01", "Parade", "cultural", None),
        ("2016-01-02", "SNAP", "payday", "CA"),
        ("2016-01-02", "SNAP", "payday", "TX"),
    ]


def test_the_validation_file_serves_where_the_evaluation_file_is_missing(tmp_path: Path) -> None:
    load_m5(tmp_path / "a", write_csv_form(tmp_path / "csv", "sales_train_validation.csv"))
    load_m5(tmp_path / "b", write_csv_form(tmp_path / "other"))
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_every_missing_file_of_both_forms_is_named(tmp_path: Path) -> None:
    (write_csv_form(tmp_path / "csv") / "calendar.csv").unlink()
    (tmp_path / "csv" / "sales_train_evaluation.csv").unlink()
    with pytest.raises(LandingError) as refused:
        load_m5(tmp_path / "landing", tmp_path / "csv")
    for name in ("calendar.csv", "sales_train_evaluation.csv or sales_train_validation.csv", "sales_daily.parquet"):
        assert name in str(refused.value)
    assert "sell_prices.csv" not in str(refused.value)
    assert not (tmp_path / "landing").exists()


def test_prices_of_a_week_that_the_calendar_lacks_are_not_dropped_silently(tmp_path: Path) -> None:
    source = write_csv_form(tmp_path / "csv")
    pl.concat([prices(), prices().head(1).with_columns(pl.lit(11999, pl.Int64).alias("wm_yr_wk"))]).write_csv(
        source / "sell_prices.csv"
    )
    with pytest.raises(LandingError, match="11999"):
        load_m5(tmp_path / "landing", source)


def test_sales_of_a_day_that_the_calendar_lacks_are_not_dropped_silently(tmp_path: Path) -> None:
    source = write_csv_form(tmp_path / "csv")
    calendar().head(LAST_KNOWN - 2).write_csv(source / "calendar.csv")
    with pytest.raises(LandingError, match=f"d_{LAST_KNOWN - 1}, d_{LAST_KNOWN}"):
        load_m5(tmp_path / "landing", source)
