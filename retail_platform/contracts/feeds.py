"""What each feed of the landing zone must hold, and the bronze tables that keep it as it arrived.

Here: the columns of every feed with the type their text must be readable as, their units and whether a file
may lack them. The raw tables and `docs/feeds.md` derive from this list. Not here: how files are read
(`sources/`), and what a *good* row is (the contracts of the clean tables).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import TABLES, Classification, Table, column, table


@dataclass(frozen=True)
class FeedColumn:
    """A column of a landing file. A file without a `required` column is refused as a whole."""

    name: str
    dtype: pl.DataType
    description: str
    required: bool = False
    unit: str | None = None
    classification: Classification = "internal"
    example: str = ""


@dataclass(frozen=True)
class Feed:
    """A kind of file in the landing zone. `date_column` sets the partition a row belongs to, where one does.

    `version` is that of the columns: the first number changes when files that were good no longer are, the second when
    more is accepted than before.
    """

    name: str
    description: str
    columns: tuple[FeedColumn, ...]
    owner: str
    source_system: str
    date_column: str | None = None
    required: bool = False
    version: str = "1.0"

    @property
    def raw_table(self) -> str:
        return f"raw.{self.name}"

    @property
    def clean_table(self) -> str:
        return f"clean.{CLEAN_NAMES.get(self.name, self.name)}"

    @property
    def column_names(self) -> list[str]:
        return [c.name for c in self.columns]

    @property
    def required_columns(self) -> list[str]:
        return [c.name for c in self.columns if c.required]


CLEAN_NAMES = {"pos_sales": "sales", "calendar_events": "calendar"}

_DATE, _TIME, _TEXT, _REAL, _WHOLE = pl.Date(), pl.Datetime("us"), pl.String(), pl.Float64(), pl.Int64()
_C = FeedColumn

_STORE = _C("store_id", _TEXT, "Store as the source system names it", required=True, example="S001")
_ITEM = _C("item_id", _TEXT, "Item (SKU) as the source system names it", required=True, example="4006381333931")

FEEDS: dict[str, Feed] = {
    feed.name: feed
    for feed in (
        Feed(
            "pos_sales",
            "Point-of-sale lines: one row per receipt line, or one row per store, item and day where only daily "
            "totals exist (then without transaction_id). Returns have a negative quantity.",
            (
                _C("business_date", _DATE, "Trading day in the store's own time zone", True, example="2017-03-01"),
                _STORE,
                _ITEM,
                _C("quantity", _REAL, "Units sold; negative for a return", True, "units", example="2"),
                _C("sales_amount", _REAL, "Paid for the line after discounts", False, "currency", example="5.98"),
                _C("discount_amount", _REAL, "Discount granted on the line", False, "currency", example="0.40"),
                _C("transaction_id", _TEXT, "Receipt; absent for daily totals", example="31198570044"),
                _C(
                    "line_number",
                    _WHOLE,
                    "Position on the receipt. Without it the order of the lines within the file counts, and a line "
                    "that stands twice in one file cannot be told from two equal purchases",
                    example="1",
                ),
                _C("sold_at", _TIME, "Time of sale, local to the store", example="2017-03-01T18:22:05"),
                _C("customer_id", _TEXT, "Loyalty or household id", classification="personal", example="900"),
            ),
            "team:data-engineering",
            "point_of_sale",
            date_column="business_date",
            required=True,
        ),
        Feed(
            "inventory",
            "Stock at the close of a day. `item_id` may be an item or a node of the item hierarchy.",
            (
                _C("as_of_date", _DATE, "Day at whose close the stock was counted", True, example="2017-03-01"),
                _STORE,
                _ITEM,
                _C("on_hand", _REAL, "Units in the store", True, "units", example="14"),
                _C("on_order", _REAL, "Units ordered and not yet arrived", False, "units", example="24"),
            ),
            "team:supply-chain",
            "warehouse_management",
            date_column="as_of_date",
        ),
        Feed(
            "items",
            "Item master: one row per item with its hierarchy and its supply.",
            (
                _ITEM,
                _C("item_name", _TEXT, "Name on the shelf label", example="Apple sauce 50 oz"),
                _C("category", _TEXT, "Level above the item", example="FRUIT - SHELF STABLE"),
                _C("department", _TEXT, "Level above the category", example="GROCERY"),
                _C("brand", _TEXT, "Brand or brand type", example="Private"),
                _C("unit_cost", _REAL, "Purchase cost of one unit", False, "currency", "confidential", "1.10"),
                _C("case_pack", _WHOLE, "Units in a case; orders are whole cases", False, "units", example="12"),
                _C("lead_time_days", _WHOLE, "Days from order to delivery", False, "days", example="3"),
            ),
            "team:category-management",
            "product_master",
        ),
        Feed(
            "stores",
            "Store master: one row per store.",
            (
                _STORE,
                _C("store_name", _TEXT, "Name of the store", example="Main Street"),
                _C("region", _TEXT, "Region that weather, events and prices refer to", example="CA"),
                _C("time_zone", _TEXT, "IANA time zone", example="America/New_York"),
                _C("opened_on", _DATE, "First trading day", example="2011-01-29"),
                _C("closed_on", _DATE, "Last trading day", example=""),
            ),
            "team:store-operations",
            "store_master",
        ),
        Feed(
            "prices",
            "Shelf prices with the days for which they hold. An item with prices is listed in a store only while one "
            "holds.",
            (
                _STORE,
                _ITEM,
                _C("valid_from", _DATE, "First day of the price", True, example="2017-02-27"),
                _C("valid_to", _DATE, "Last day of the price; empty means until the next one", example="2017-03-05"),
                _C("price", _REAL, "Price of one unit", True, "currency", example="2.99"),
            ),
            "team:category-management",
            "pricing",
        ),
        Feed(
            "promotions",
            "Promotions, known ahead: one row per promotion, store and item.",
            (
                _C("promotion_id", _TEXT, "Promotion as planned", True, example="2017-W09-mailer"),
                _STORE,
                _ITEM,
                _C("start_date", _DATE, "First day", True, example="2017-02-27"),
                _C("end_date", _DATE, "Last day", True, example="2017-03-05"),
                _C("promotion_type", _TEXT, "Mailer, display, price cut ...", example="mailer"),
                _C("discount_share", _REAL, "Price cut as a share of the price", False, "share", example="0.20"),
            ),
            "team:category-management",
            "promotion_planning",
        ),
        Feed(
            "calendar_events",
            "Days that move demand: holidays, sports, pay days. An empty region means everywhere.",
            (
                _C("date", _DATE, "Day of the event", True, example="2017-11-23"),
                _C("event_name", _TEXT, "Name of the event", True, example="Thanksgiving"),
                _C("event_type", _TEXT, "National, religious, sporting, payday ...", example="national"),
                _C("region", _TEXT, "Region of the event", example=""),
            ),
            "team:category-management",
            "events_calendar",
        ),
        Feed(
            "weather",
            "Daily weather by region, observed or forecast; each revision is a row of its own.",
            (
                _C("date", _DATE, "Day", True, example="2017-03-01"),
                _C("region", _TEXT, "Region, as in stores", True, example="CA"),
                _C("temperature_mean", _REAL, "Mean temperature", False, "degrees Celsius", example="11.5"),
                _C("temperature_min", _REAL, "Lowest temperature", False, "degrees Celsius", example="7.2"),
                _C("temperature_max", _REAL, "Highest temperature", False, "degrees Celsius", example="16.1"),
                _C("precipitation", _REAL, "Rain and melted snow", False, "millimetres", example="2.4"),
                _C("provider", _TEXT, "Who measured it; 'simulated' where nobody did", example="simulated"),
                _C(
                    "published_on",
                    _DATE,
                    "Day from which these figures were known, where they are revised or were forecast; without it a "
                    "later file corrects an earlier one",
                    example="2017-03-02",
                ),
            ),
            "team:data-engineering",
            "weather_service",
        ),
        Feed(
            "economic_indicators",
            "Published economic figures; each revision is a row of its own.",
            (
                _C("indicator", _TEXT, "Name of the series", True, example="consumer_price_index"),
                _C("period_start", _DATE, "First day of the period described", True, example="2017-01-01"),
                _C("value", _REAL, "Figure", True, "as the provider states", example="243.6"),
                _C("published_on", _DATE, "Day from which the figure was known", True, example="2017-02-15"),
                _C("provider", _TEXT, "Who published it; 'simulated' where nobody did", example="simulated"),
            ),
            "team:data-engineering",
            "statistics_office",
        ),
    )
}


PROVENANCE_COLUMNS = ("file_id", "row_number", "partition_date", "ingested_at")


class _Provenance(pa.DataFrameModel):
    file_id: pl.String = column("SHA-256 of the landing file's content", str_matches=r"^[0-9a-f]{64}$")
    row_number: pl.Int64 = column("Row in the file, the first data row being 1", ge=1)
    partition_date: pl.Date = column(
        "Day whose partition the row belongs to: its own date where that is readable and not in the future, else "
        "the day of arrival, so that every row that arrived belongs to exactly one day"
    )
    ingested_at: pl.Datetime("us") = column("When the row was taken in (UTC)")  # type: ignore[valid-type]


def contract_version(feed: Feed, extra_columns: Iterable[str] = ()) -> str:
    """The version of a feed's contract as it is in force: that of its columns, and the columns admitted by setting."""
    return "+".join([feed.version, *sorted(extra_columns)])


def problems_of_extra_columns(feed: str, extra_columns: Iterable[str]) -> list[str]:
    """Why columns cannot be admitted beside those of a feed, in words."""
    taken = {*PROVENANCE_COLUMNS, *(FEEDS[feed].column_names if feed in FEEDS else ())}
    return [
        f"column {name} is there already, and cannot be an extra column"
        if name in taken
        else f"extra column {name!r} must have a plain name (small letters, digits, _); its name in the files goes "
        "under columns"
        for name in extra_columns
        if name in taken or not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name)
    ]


def raw_table(feed: Feed, extra_columns: Iterable[str] = ()) -> Table:
    """The bronze table of a feed: provenance, and its columns and the extra ones as text, as received."""
    extra = [FeedColumn(name, _TEXT, "Admitted by setting") for name in extra_columns]
    if feed.raw_table in TABLES and not extra:
        return TABLES[feed.raw_table]
    annotations: dict[str, object] = {}
    fields: dict[str, object] = {"__module__": __name__}
    for c in [*feed.columns, *extra]:
        annotations[c.name] = pl.String
        fields[c.name] = column(
            f"{c.description} (text as received)", unit=c.unit, classification=c.classification, nullable=True
        )
    fields["__annotations__"] = annotations
    fields["__doc__"] = f"As received, never altered: {feed.description}"
    return Table(
        feed.raw_table,
        model=type(f"Raw_{feed.name}", (_Provenance,), fields),
        grain=("file_id", "row_number"),
        owner=feed.owner,
        description=str(fields["__doc__"]),
        retention_days=None,
        replaced_by=None,
        tier="bronze",
        may_have_more_columns=True,
    )


RAW_TABLES: dict[str, Table] = {name: raw_table(feed) for name, feed in FEEDS.items()}
TABLES.update({raw.name: raw for raw in RAW_TABLES.values()})


@table(
    "raw.ingested_files",
    grain=("feed", "file_id"),
    owner="team:data-engineering",
    retention_days=None,
    replaced_by=None,
    tier="bronze",
)
class IngestedFiles(pa.DataFrameModel):
    """Ledger of the landing zone: one row per feed and file content that was taken in, written with the file's rows in
    one transaction, so that the same content is never taken twice."""

    file_id: pl.String = column("SHA-256 of the file's content", str_matches=r"^[0-9a-f]{64}$")
    feed: pl.String = column("Feed that the file belongs to", isin=list(FEEDS))
    file_name: pl.String = column("Path below the landing zone's feed folder when it was taken")
    bytes: pl.Int64 = column("Size of the file", unit="bytes", ge=0)
    rows: pl.Int64 = column("Data rows in the file", unit="rows", ge=0)
    first_date: pl.Date = column("Earliest partition that the file touches", nullable=True)
    last_date: pl.Date = column("Latest partition that the file touches", nullable=True)
    status: pl.String = column("What became of the file", isin=["ingested", "empty"])
    run_id: pl.String = column("Run that took it in")
    file_modified_at: pl.Datetime("us") = column("Modification time of the file (UTC)")  # type: ignore[valid-type]
    ingested_at: pl.Datetime("us") = column("When it was taken in (UTC)")  # type: ignore[valid-type]
    source: pl.String = column("Source (a name in the settings) that the file is an extract of", nullable=True)
    extracted_after: pl.String = column("Position in the source after which the extract begins", nullable=True)
    extracted_to: pl.String = column("Position in the source to which the extract reaches", nullable=True)
    contract_version: pl.String = column("Version of the feed's contract by which it was taken in", nullable=True)
    file_columns: pl.String = column("The file's format and its columns with their types, as JSON", nullable=True)


@table(
    "raw.files_left_out",
    grain=("feed", "file_name", "seen_at"),
    owner="team:data-engineering",
    retention_days=None,
    replaced_by=None,
    tier="bronze",
)
class FilesLeftOut(pa.DataFrameModel):
    """Files of the landing zone that were not taken in, each with the reason; a row is added whenever the file or the
    reason has changed since the last look."""

    feed: pl.String = column("Feed in whose folder it lies", isin=list(FEEDS))
    file_name: pl.String = column("Path below the landing zone's feed folder")
    outcome: pl.String = column(
        "refused: cannot be read as its feed; repeated: its content was taken in before; "
        "ignored: not a file that is looked into; growing: not yet complete",
        isin=["refused", "repeated", "ignored", "growing"],
    )
    reason: pl.String = column("What is wrong, and the remedy")
    file_id: pl.String = column("SHA-256 of the file's content, where it was read", nullable=True)
    bytes: pl.Int64 = column("Size of the file", unit="bytes", ge=0, nullable=True)
    file_modified_at: pl.Datetime("us") = column(  # type: ignore[valid-type]
        "Modification time of the file (UTC)", nullable=True
    )
    run_id: pl.String = column("Run that left it out")
    seen_at: pl.Datetime("us") = column("When it was looked at (UTC)")  # type: ignore[valid-type]
