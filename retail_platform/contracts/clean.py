"""What the cleaned tables and the quarantine promise.

Here: one Pandera model per table of the schemas `clean` and `quarantine`. Not here: how a raw row becomes a
clean one (`cleaning/`).
"""

from typing import Any

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.feeds import FEEDS
from retail_platform.contracts.table import RowRule, column, table

FILE_ID = r"^[0-9a-f]{64}$"


def _amount(description: str) -> Any:
    return column(description, unit="currency", nullable=True, ge=-1e9, le=1e9)


class _Traced(pa.DataFrameModel):
    source_file_id: pl.String = column("Landing file that the row came from (raw.ingested_files)", str_matches=FILE_ID)
    source_row_number: pl.Int64 = column("Row in that file", ge=1)


@table(
    "clean.sales",
    grain=("business_date", "store_id", "item_id", "transaction_id", "line_number"),
    owner="team:data-engineering",
    retention_days=3653,
    replaced_by=("business_date",),
)
class Sales(_Traced):
    """One line of a till receipt, or one daily total of a store and item where the source has no receipts. Returns
    have a negative quantity."""

    business_date: pl.Date = column("Trading day in the store's own time zone")
    store_id: pl.String = column("Store (clean.stores)", str_matches=r"\S")
    item_id: pl.String = column("Item (clean.items)", str_matches=r"\S")
    transaction_id: pl.String = column("Receipt; empty for a daily total", nullable=True)
    line_number: pl.Int64 = column("Position on the receipt; empty for a daily total", nullable=True, ge=1)
    sold_at: pl.Datetime("us") = column("Time of sale, local to the store", nullable=True)  # type: ignore[valid-type]
    quantity: pl.Float64 = column("Units sold; negative for a return", unit="units", ge=-1e9, le=1e9)
    sales_amount: pl.Float64 = _amount("Paid for the line after discounts")
    discount_amount: pl.Float64 = _amount("Discount granted on the line; negative on a return")
    customer_pseudonym: pl.String = column(
        "Keyed HMAC-SHA-256 of the customer id; the id itself never leaves raw",
        classification="confidential",
        nullable=True,
        str_matches=r"^[0-9a-f]{32}$",
    )


@table(
    "clean.inventory",
    grain=("as_of_date", "store_id", "item_id"),
    owner="team:supply-chain",
    retention_days=1827,
    replaced_by=("as_of_date",),
)
class Inventory(_Traced):
    """Stock of a store and item at the close of a day."""

    as_of_date: pl.Date = column("Day at whose close the stock was counted")
    store_id: pl.String = column("Store (clean.stores)", str_matches=r"\S")
    item_id: pl.String = column("Item, or a node of the item hierarchy (clean.items)", str_matches=r"\S")
    on_hand: pl.Float64 = column("Units in the store; negative where the books say so", unit="units", ge=-1e9, le=1e9)
    on_order: pl.Float64 = column("Units ordered and not yet arrived", unit="units", nullable=True, ge=0, le=1e9)


@table("clean.items", grain=("item_id",), owner="team:category-management", retention_days=None)
class Items(_Traced):
    """Item master with its hierarchy: item, category, department."""

    item_id: pl.String = column("Item (SKU)", str_matches=r"\S")
    item_name: pl.String = column("Name on the shelf label", nullable=True)
    category: pl.String = column("Level above the item; empty where the source does not classify it", nullable=True)
    department: pl.String = column("Level above the category", nullable=True)
    brand: pl.String = column("Brand or brand type", nullable=True)
    unit_cost: pl.Float64 = column(
        "Purchase cost of one unit", unit="currency", classification="confidential", nullable=True, ge=0
    )
    case_pack: pl.Int64 = column("Units that one case holds", unit="units", nullable=True, ge=1)
    lead_time_days: pl.Int64 = column("Days from order to delivery", unit="days", nullable=True, ge=0)


@table("clean.stores", grain=("store_id",), owner="team:store-operations", retention_days=None)
class Stores(_Traced):
    """Store master."""

    store_id: pl.String = column("Store", str_matches=r"\S")
    store_name: pl.String = column("Name of the store", nullable=True)
    region: pl.String = column("Region that weather and events refer to", nullable=True)
    time_zone: pl.String = column("IANA time zone", nullable=True)
    opened_on: pl.Date = column("First trading day", nullable=True)
    closed_on: pl.Date = column("Last trading day", nullable=True)


@table(
    "clean.prices",
    grain=("store_id", "item_id", "valid_from"),
    owner="team:category-management",
    retention_days=3653,
    rules=(
        RowRule(
            "price period",
            pl.col("valid_to") >= pl.col("valid_from"),
            "valid_to must not lie before valid_from",
        ),
    ),
)
class Prices(_Traced):
    """Shelf price of an item in a store and the days for which it holds."""

    store_id: pl.String = column("Store (clean.stores)", str_matches=r"\S")
    item_id: pl.String = column("Item (clean.items)", str_matches=r"\S")
    valid_from: pl.Date = column("First day of the price")
    valid_to: pl.Date = column("Last day of the price; empty means until the next one", nullable=True)
    price: pl.Float64 = column("Price of one unit", unit="currency", ge=0, le=1e9)


@table(
    "clean.promotions",
    grain=("promotion_id", "store_id", "item_id"),
    owner="team:category-management",
    retention_days=3653,
    rules=(
        RowRule(
            "promotion period",
            pl.col("end_date") >= pl.col("start_date"),
            "end_date must not lie before start_date",
        ),
    ),
)
class Promotions(_Traced):
    """A promotion of an item in a store, known ahead."""

    promotion_id: pl.String = column("Promotion as planned", str_matches=r"\S")
    store_id: pl.String = column("Store (clean.stores)", str_matches=r"\S")
    item_id: pl.String = column("Item (clean.items)", str_matches=r"\S")
    start_date: pl.Date = column("First day")
    end_date: pl.Date = column("Last day")
    promotion_type: pl.String = column("Mailer, display, price cut ...", nullable=True)
    discount_share: pl.Float64 = column("Price cut as a share of the price", unit="share", nullable=True, ge=0, le=1)


@table("clean.calendar", grain=("date", "region", "event_name"), owner="team:category-management", retention_days=None)
class Calendar(pa.DataFrameModel):
    """Days that move demand, from the feed and from the public holidays of the configured country."""

    date: pl.Date = column("Day of the event")
    region: pl.String = column("Region of the event; '*' means everywhere")
    event_name: pl.String = column("Name of the event", str_matches=r"\S")
    event_type: pl.String = column("National, religious, sporting, payday ...", nullable=True)
    source_file_id: pl.String = column("Landing file; empty for a public holiday", nullable=True, str_matches=FILE_ID)
    source_row_number: pl.Int64 = column("Row in that file", nullable=True, ge=1)


@table("clean.weather", grain=("date", "region", "published_on"), owner="team:data-engineering", retention_days=3653)
class Weather(_Traced):
    """Daily weather by region, with the day from which it was known where the source says so; revisions are kept."""

    date: pl.Date = column("Day")
    region: pl.String = column("Region, as in clean.stores", str_matches=r"\S")
    temperature_mean: pl.Float64 = column("Mean temperature", unit="degrees Celsius", nullable=True, ge=-90, le=60)
    temperature_min: pl.Float64 = column("Lowest temperature", unit="degrees Celsius", nullable=True, ge=-90, le=60)
    temperature_max: pl.Float64 = column("Highest temperature", unit="degrees Celsius", nullable=True, ge=-90, le=60)
    precipitation: pl.Float64 = column("Rain and melted snow", unit="millimetres", nullable=True, ge=0, le=2000)
    provider: pl.String = column("Who measured it; 'simulated' where nobody did", nullable=True)
    published_on: pl.Date = column("Day from which the figures were known", nullable=True)


@table(
    "clean.economic_indicators",
    grain=("indicator", "period_start", "published_on"),
    owner="team:data-engineering",
    retention_days=None,
)
class EconomicIndicators(_Traced):
    """Published economic figures with the day from which each was known; revisions are kept."""

    indicator: pl.String = column("Name of the series", str_matches=r"\S")
    period_start: pl.Date = column("First day of the period described")
    value: pl.Float64 = column("Figure", unit="as the provider states", ge=-1e15, le=1e15)
    published_on: pl.Date = column("Day from which the figure was known")
    provider: pl.String = column("Who published it; 'simulated' where nobody did", nullable=True)


class _SetAside(pa.DataFrameModel):
    feed: pl.String = column("Feed of the row", isin=list(FEEDS))
    file_id: pl.String = column("Landing file (raw.ingested_files)", str_matches=FILE_ID)
    row_number: pl.Int64 = column("Row in that file", ge=1)
    partition_date: pl.Date = column("Partition of the row, as in the raw table")


@table(
    "quarantine.rejected_rows",
    grain=("feed", "file_id", "row_number"),
    owner="team:data-engineering",
    retention_days=730,
    replaced_by=("feed", "partition_date"),
)
class RejectedRows(_SetAside):
    """Every row that broke a contract, whole, with all its reasons."""

    reasons: pl.List(pl.String) = column("Every promise that the row broke, in words")  # type: ignore[valid-type]
    row_json: pl.String = column("The row as received, as a JSON object", classification="personal")
    rejected_at: pl.Datetime("us") = column("When it was rejected (UTC)")  # type: ignore[valid-type]


@table(
    "quarantine.duplicate_rows",
    grain=("feed", "file_id", "row_number"),
    owner="team:data-engineering",
    retention_days=730,
    replaced_by=("feed", "partition_date"),
)
class DuplicateRows(_SetAside):
    """Every row left out because the clean table holds another row of the same grain, a repetition or a correction by
    a later file, or because a later file that is complete for its store and day left it out."""

    kept_file_id: pl.String = column("File that was kept instead", str_matches=FILE_ID)
    kept_row_number: pl.Int64 = column("Row in that file; empty where it has none of this grain", nullable=True, ge=1)
    kind: pl.String = column(
        "repeated: the same values; superseded: a later file brought other values; withdrawn: a later file, complete "
        "for the store and day, has no such row, or the row was broken",
        isin=["repeated", "superseded", "withdrawn"],
    )
