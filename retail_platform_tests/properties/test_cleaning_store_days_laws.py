"""Files that are complete per store and day, held against a plain account of them, row by row and file by file."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.cleaning import References, clean_feed
from retail_platform.cleaning.store_days import HELD_BACK
from retail_platform.contracts import TABLES
from retail_platform.settings import FeedSettings

TODAY = date(2017, 6, 1)
DAYS = (date(2017, 3, 1), date(2017, 3, 2))
STORES = ("S1", "S2", "S3")

Place = tuple[int, int]
"""File and row, both counted from 0."""


@dataclass(frozen=True)
class Row:
    """A row of a stock file; without a store, a day or a readable number it is broken."""

    store: str | None
    day: date | None
    item: str
    on_hand: str
    readable: bool
    waived: bool

    @property
    def is_good(self) -> bool:
        return self.store is not None and self.day is not None and self.readable


ROWS = st.builds(
    Row,
    store=st.sampled_from([*STORES, *STORES, None]),
    day=st.sampled_from([*DAYS, *DAYS, None]),
    item=st.sampled_from(["A", "B", "C"]),
    on_hand=st.sampled_from(["1", "2"]),
    readable=st.booleans(),
    waived=st.booleans(),
)
# Many rows, so that each example has several store-days with several files.
FILES = st.lists(st.lists(ROWS, min_size=8, max_size=16), min_size=2, max_size=4)


def file_id(number: int) -> str:
    # Later files have smaller ids, so that nothing can rest on the order of the ids.
    return f"{15 - number:064x}"


def outcomes(files: list[list[Row]], budget: float) -> dict[Place, object]:
    """What cleaning makes of each row."""
    raw = [
        {
            "file_id": file_id(number),
            "row_number": position + 1,
            "partition_date": row.day or TODAY,
            "ingested_at": datetime(2017, 5, 1) + timedelta(hours=number),
            "as_of_date": str(row.day) if row.day else "one day",
            "store_id": row.store,
            "item_id": row.item,
            "on_hand": row.on_hand,
            "on_order": None if row.readable else "many",
        }
        for number, file in enumerate(files)
        for position, row in enumerate(file)
    ]
    waived = [
        {"file_id": file_id(number), "row_number": position + 1}
        for number, file in enumerate(files)
        for position, row in enumerate(file)
        if row.waived
    ]
    cleaned = clean_feed(
        "inventory",
        pl.DataFrame(raw, schema=TABLES["raw.inventory"].polars_schema).reverse(),
        references=References(),
        now=datetime(2017, 6, 1, 8),
        today=TODAY,
        customer_key=None,
        form=FeedSettings(replaces="store_day", reject_budget=budget),
        waived=pl.DataFrame(waived, schema={"file_id": pl.String, "row_number": pl.Int64}),
    )
    TABLES["clean.inventory"].validate(cleaned.clean)
    TABLES["quarantine.duplicate_rows"].validate(cleaned.duplicates)
    numbers = {file_id(number): number for number in range(len(files))}
    found: list[tuple[Place, object]] = [
        *(
            ((numbers[f], r - 1), "clean")
            for f, r in cleaned.clean.select("source_file_id", "source_row_number").rows()
        ),
        *(
            ((numbers[f], r - 1), "held back" if reasons == [HELD_BACK] else "rejected")
            for f, r, reasons in cleaned.rejected.select("file_id", "row_number", "reasons").rows()
        ),
        *(
            ((numbers[f], r - 1), (kind, numbers[kept_file], None if kept_row is None else kept_row - 1))
            for f, r, kept_file, kept_row, kind in cleaned.duplicates.select(
                "file_id", "row_number", "kept_file_id", "kept_row_number", "kind"
            ).rows()
        ),
    ]
    assert len(found) == len(dict(found)), "a row has one outcome"
    return dict(found)


def expected(files: list[list[Row]], budget: float) -> dict[Place, object]:
    """The same from the words of the rule: files come one after the other, and each is looked at as a whole."""
    found: dict[Place, object] = {}
    for number, file in enumerate(files):
        for position, row in enumerate(file):
            if row.store is None or row.day is None:
                found[number, position] = "rejected"
    for store in STORES:
        for day in DAYS:
            parts = [
                {position: row for position, row in enumerate(file) if (row.store, row.day) == (store, day)}
                for file in files
            ]
            found.update(_store_day(parts, budget))
    return found


def _store_day(parts: list[dict[int, Row]], budget: float) -> dict[Place, object]:
    """The rows of one store and day, by file and position."""
    counting = _file_that_counts(parts, budget)
    if counting is None:
        return {(number, position): "rejected" for number, rows in enumerate(parts) for position in rows}
    found = _within_the_file_that_counts(counting, parts[counting])
    kept = {parts[counting][place].item: place for (_, place), outcome in found.items() if outcome == "clean"}
    for number, rows in enumerate(parts):
        for position, row in rows.items():
            if number < counting and row.item not in kept:
                found[number, position] = ("withdrawn", counting, None)
            elif number < counting:
                same = "repeated" if row.on_hand == parts[counting][kept[row.item]].on_hand else "superseded"
                found[number, position] = (same if row.is_good else "withdrawn", counting, kept[row.item])
            elif number > counting:
                found[number, position] = "held back" if row.is_good else "rejected"
    return found


def _file_that_counts(parts: list[dict[int, Row]], budget: float) -> int | None:
    counting = None
    for number, rows in enumerate(parts):
        lost = sum(not row.is_good and not row.waived for row in rows.values())
        if any(row.is_good for row in rows.values()) and (counting is None or lost <= budget * len(rows)):
            counting = number
    return counting


def _within_the_file_that_counts(number: int, rows: dict[int, Row]) -> dict[Place, object]:
    found: dict[Place, object] = {}
    first: dict[str, int] = {}
    for position, row in rows.items():
        if not row.is_good:
            found[number, position] = "rejected"
        elif row.item not in first:
            first[row.item] = position
            found[number, position] = "clean"
        else:
            same = row.on_hand == rows[first[row.item]].on_hand
            found[number, position] = ("repeated", number, first[row.item]) if same else "rejected"
    return found


@settings(max_examples=40, deadline=None)
@given(FILES, st.sampled_from([0.0, 0.25, 0.5]))
def test_every_row_has_the_outcome_that_the_rule_gives_it(files: list[list[Row]], budget: float) -> None:
    assert outcomes(files, budget) == expected(files, budget)
