"""What holds for every contract, and how a broken one is told."""

from datetime import date, datetime
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from retail_platform.contracts import FEEDS, TABLES, ContractBroken, Table
from retail_platform.contracts.table import CLASSIFICATIONS, MASK, RowRule, column


class _Shelf(pa.DataFrameModel):
    """Shelves of a store."""

    shelf: pl.String = column("Shelf", str_matches=r"\S", classification="public")
    first: pl.Date = column("First day")
    last: pl.Date = column("Last day", nullable=True)
    width: pl.Int64 = column("Width", unit="cm", ge=1, le=400, classification="confidential")
    kind: pl.String = column("Kind", isin=["high", "low"], nullable=True)


SHELF = Table(
    name="test.shelf",
    model=_Shelf,
    grain=("shelf",),
    owner="team:test",
    description="Shelves of a store.",
    retention_days=None,
    replaced_by=(),
    rules=(RowRule("period", pl.col("last") >= pl.col("first"), "last must not lie before first"),),
)


def shelves(**changes: list[Any]) -> pl.DataFrame:
    good = {"shelf": ["A"], "first": [date(2017, 1, 1)], "last": [None], "width": [90], "kind": [None]}
    return pl.DataFrame({**good, **changes}, schema=SHELF.polars_schema)


def broken_rules(frame: pl.DataFrame) -> list[str]:
    return [
        rule.message for rule in SHELF.row_rules() if not frame.select(rule.holds.fill_null(value=True)).to_series()[0]
    ]


@pytest.mark.parametrize("name", TABLES)
def test_every_contract_is_complete(name: str) -> None:
    table = TABLES[name]
    assert table.name == name == f"{table.schema_name}.{table.table_name}"
    assert table.owner.startswith("team:")
    assert table.description.endswith(".")
    columns = {c.name for c in table.columns}
    assert set(table.grain) <= columns
    assert set(table.replaced_by or ()) <= columns
    assert not {c.name for c in table.columns if not c.description or c.classification not in CLASSIFICATIONS}


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_keeps_its_contract(name: str) -> None:
    table = TABLES[name]
    assert table.validate(table.empty()).schema == table.polars_schema


@pytest.mark.parametrize("name", TABLES)
def test_row_rules_can_be_derived_and_are_told_apart(name: str) -> None:
    rules = TABLES[name].row_rules()
    assert len({rule.name for rule in rules}) == len(rules)
    TABLES[name].empty().select(rule.holds.alias(rule.name) for rule in rules)


@pytest.mark.parametrize("name", FEEDS)
def test_a_feed_and_its_tables_agree(name: str) -> None:
    feed = FEEDS[name]
    raw, clean = TABLES[feed.raw_table].polars_schema, TABLES[feed.clean_table].polars_schema
    assert set(feed.column_names) < set(raw)
    assert {raw[column_name] for column_name in feed.column_names} == {pl.String()}
    same_name = {c.name: c.dtype for c in feed.columns if c.name in clean}
    assert same_name == {column_name: clean[column_name] for column_name in same_name}
    assert set(feed.column_names) - set(clean) <= {"customer_id"}
    assert feed.required_columns
    if feed.date_column:
        assert TABLES[feed.clean_table].replaced_by == (feed.date_column,)


def test_customers_are_personal_data_wherever_they_are_named() -> None:
    of_customers = {
        (table.name, c.name): c.classification
        for table in TABLES.values()
        for c in table.columns
        if "customer" in c.name
    }
    assert of_customers == {
        ("raw.pos_sales", "customer_id"): "personal",
        ("clean.sales", "customer_pseudonym"): "confidential",
    }


def test_a_table_is_as_sensitive_as_its_most_sensitive_column() -> None:
    assert SHELF.classification == "confidential"


def test_a_good_frame_comes_back_in_the_order_of_the_contract() -> None:
    frame = shelves()
    assert SHELF.validate(frame.select(reversed(frame.columns))).columns == frame.columns


def test_all_differences_of_the_schema_are_told_at_once() -> None:
    frame = shelves().drop("first").with_columns(pl.col("width").cast(pl.Float64), extra=pl.lit(1))
    with pytest.raises(ContractBroken) as broken:
        SHELF.validate(frame)
    assert str(broken.value) == (
        "test.shelf: column first (Date) is missing; column extra is not in the contract; "
        "column width is Float64, the contract says Int64"
    )


def test_all_broken_promises_are_told_at_once_with_counts_and_an_example() -> None:
    frame = pl.concat([shelves(), shelves(width=[0]), shelves(shelf=[" "], kind=["wide"])])
    with pytest.raises(ContractBroken) as broken:
        SHELF.validate(frame)
    message = str(broken.value)
    for words in ("test.shelf: ", "width: ", "shelf: ", "kind: ", "for example wide", "broken by 2 rows"):
        assert words in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"shelf": [None]}, "shelf is missing"),
        ({"shelf": [" "]}, r"shelf must be of the form \S"),
        ({"width": [0]}, "width must be at least 1"),
        ({"width": [401]}, "width must be at most 400"),
        ({"kind": ["wide"]}, "kind must be one of high, low"),
        ({"last": [date(2016, 1, 1)]}, "last must not lie before first"),
        ({"last": [date(2017, 1, 1)]}, None),
    ],
)
def test_row_rules_and_pandera_agree(changes: dict[str, list[Any]], message: str | None) -> None:
    frame = shelves(**changes)
    assert broken_rules(frame) == ([] if message is None else [message])
    if message is None:
        assert SHELF.validate(frame).equals(frame)
    else:
        with pytest.raises(ContractBroken):
            SHELF.validate(frame)


def test_a_repeated_grain_breaks_the_contract() -> None:
    with pytest.raises(ContractBroken, match="shelf"):
        SHELF.validate(pl.concat([shelves(), shelves(width=[80])]))


def test_a_check_that_no_rule_is_known_for_is_refused_by_name() -> None:
    class Strange(pa.DataFrameModel):
        code: pl.String = column("Code", str_length={"min_value": 3})

    table = Table("test.strange", Strange, ("code",), "team:test", "Strange.", None, ())
    with pytest.raises(ValueError, match="code: no row rule is derived from Pandera's check str_length"):
        table.row_rules()


def test_times_are_microseconds_everywhere() -> None:
    units = {c.dtype for table in TABLES.values() for c in table.columns if isinstance(c.dtype, pl.Datetime)}
    assert units == {pl.Datetime("us")}
    assert pl.Series([datetime(2017, 1, 1)]).dtype == pl.Datetime("us")


class _Customer(pa.DataFrameModel):
    """Customers with their shelf."""

    shelf: pl.String = column("Shelf", str_matches=r"^[A-Z]$")
    customer: pl.String = column("Customer", classification="personal", str_matches=r"^C")
    visits: pl.Int64 = column("Visits", ge=1)


CUSTOMERS = Table(
    name="test.customers",
    model=_Customer,
    grain=("shelf",),
    owner="team:test",
    description="Customers with their shelf.",
    retention_days=None,
    replaced_by=(),
    rules=(RowRule("busy", pl.col("visits") < 100, "visits must be few"),),
)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"customer": ["Ada Lovelace", "C2"]}, MASK),
        ({"shelf": ["a", "B"]}, "example a"),
        ({"shelf": ["A", "A"]}, '"shelf": "A"'),
        ({"visits": [200, 1]}, '"visits": 200'),
    ],
)
def test_a_broken_contract_is_told_without_personal_values(changes: dict[str, list[Any]], shown: str) -> None:
    rows = {"shelf": ["A", "B"], "customer": ["C Lovelace", "C2"], "visits": [1, 1], **changes}
    with pytest.raises(ContractBroken) as broken:
        CUSTOMERS.validate(pl.DataFrame(rows, schema=CUSTOMERS.polars_schema))
    assert shown in str(broken.value)
    assert "Lovelace" not in str(broken.value)
