"""The work on rejected rows: which there are and why, what the file had in them, and which are accepted as lost.

Here: finding rows in the quarantine, counting them by feed and reason, hiding personal values, waivers. Not here: why
a row is rejected (`cleaning/`), and judging rows again (`orchestration/replay.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import polars as pl

from retail_platform.cleaning import kind_of
from retail_platform.contracts import FEEDS, TABLES, Feed
from retail_platform.contracts.table import MASK
from retail_platform.governance.audit import audit_entry
from retail_platform.lakehouse import Append, Lakehouse, Provenance
from retail_platform.lakehouse.locks import table_locks

KEY = ("feed", "file_id", "row_number")
WORK_LOCK = "quarantine"
"""Name of the lock under which rows are waived or judged again, one person at a time."""

_FEWEST_DIGITS_OF_AN_ID = 8
_SHOWN_FILES = 3


class QuarantineError(Exception):
    """What was asked of the quarantine cannot be done; the message says why and what there is instead."""


@dataclass(frozen=True)
class Selection:
    """Rows of the quarantine: of a feed, of a file (its name, or the beginning of its id), one row of it, or those with
    one of these kinds of reasons."""

    feed: str | None = None
    file: str | None = None
    row: int | None = None
    reasons: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What was selected, without what was left open."""
        return {name: value for name, value in asdict(self).items() if value}


def rejected_rows(
    lakehouse: Lakehouse, selection: Selection, withheld: pl.DataFrame | None = None, *, whole: bool = False
) -> pl.DataFrame:
    """The selected rows: feed, file_name, file_id, row_number, partition_date, reasons, kinds (the reasons without
    their values), state (open, waived or withheld), and `row_json` where they are wanted whole.

    `withheld` are rows that would be rejected on withheld days (columns of quarantine.rejected_rows); they stand in no
    table. Raises `QuarantineError` where no feed, file or reason is as selected.
    """
    if selection.feed is not None and selection.feed not in FEEDS:
        raise QuarantineError(f"unknown feed {selection.feed}; known are {', '.join(FEEDS)}")
    files = files_of(lakehouse, selection)
    columns = [*KEY, "partition_date", "reasons", *(["row_json"] if whole else [])]
    where, parameters = ["feed IN (SELECT unnest(?))"], [[selection.feed] if selection.feed else list(FEEDS)]
    if selection.file is not None:
        where.append("file_id IN (SELECT unnest(?))")
        parameters.append(files["file_id"].to_list())
    rows = lakehouse.read(
        "quarantine.rejected_rows", columns=columns, where=" AND ".join(where), parameters=parameters
    ).with_columns(state=pl.lit("open"))
    if withheld is not None and withheld.height:
        rows = pl.concat([rows, withheld.select(*columns, state=pl.lit("withheld"))])
    rows = rows.join(files, on=["feed", "file_id"])
    if selection.row is not None:
        rows = rows.filter(row_number=selection.row)
    rows = _with_kinds(rows)
    if selection.reasons:
        _refuse_unknown_reasons(rows, selection)
        rows = rows.filter(pl.col("kinds").list.set_intersection(list(selection.reasons)).list.len() > 0)
    waivers = lakehouse.read("quarantine.waivers", columns=[*KEY]).with_columns(waived=True)
    return (
        rows.join(waivers, on=KEY, how="left")
        .with_columns(state=pl.when("waived").then(pl.lit("waived")).otherwise("state"))
        .select("feed", "file_name", *columns[1:], "kinds", "state")
        .sort("feed", "file_name", "file_id", "row_number")
    )


def by_reason(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows counted by feed, reason and state, most first: feed, reason, state, rows, first_day, last_day, files.

    A row with several reasons counts under each of them.
    """
    return (
        rows.explode("kinds")
        .group_by("feed", pl.col("kinds").alias("reason"), "state")
        .agg(
            pl.len().alias("rows"),
            pl.col("partition_date").min().alias("first_day"),
            pl.col("partition_date").max().alias("last_day"),
            _some_files(),
        )
        .sort("rows", "feed", "reason", "state", descending=[True, False, False, False])
    )


def duplicates_by_file(lakehouse: Lakehouse, selection: Selection) -> pl.DataFrame:
    """Rows that another row stands for, counted by file and kind: feed, kind, file_name, kept_from, rows, first_day,
    last_day. `superseded` by a later file is a correction, `withdrawn` a row that it left out: `kept_from` names it.
    """
    files = files_of(lakehouse, selection)
    kept = lakehouse.read("raw.ingested_files", columns=["feed", "file_id", "file_name"]).rename(
        {"file_id": "kept_file_id", "file_name": "kept_from"}
    )
    counted = lakehouse.query(
        "SELECT feed, kind, file_id, kept_file_id, count(*) AS rows, min(partition_date) AS first_day, "
        "max(partition_date) AS last_day FROM quarantine.duplicate_rows GROUP BY ALL"
    )
    return (
        counted.join(files, on=["feed", "file_id"])
        .join(kept, on=["feed", "kept_file_id"])
        .select("feed", "kind", "file_name", "kept_from", "rows", "first_day", "last_day")
        .sort("feed", "kind", "file_name", "kept_from")
    )


def replaced_rows(lakehouse: Lakehouse, selection: Selection, limit: int) -> pl.DataFrame:
    """Superseded rows beside the rows that replaced them, and withdrawn ones: feed, file_name, row_number, kept_from,
    kept_row_number, partition_date, `key` (the columns that name the row) and `changes`, both as text, personal values
    hidden.
    """
    files = files_of(lakehouse, selection)
    found = (
        lakehouse.read("quarantine.duplicate_rows", where="kind IN ('superseded', 'withdrawn')")
        .join(files, on=["feed", "file_id"])
        .filter(True if selection.row is None else pl.col("row_number") == selection.row)
        .sort("feed", "file_name", "row_number")
        .head(limit)
    )
    names = dict(lakehouse.read("raw.ingested_files", columns=["file_id", "file_name"]).iter_rows())
    rows = []
    for (name,), duplicates in found.group_by("feed", maintain_order=True):
        feed = FEEDS[str(name)]
        ids = {*duplicates["file_id"], *duplicates["kept_file_id"]}
        numbers = {*duplicates["row_number"], *duplicates["kept_row_number"]}
        raw = lakehouse.read(
            feed.raw_table,
            columns=["file_id", "row_number", *feed.column_names],
            where="file_id IN (SELECT unnest(?)) AND row_number IN (SELECT unnest(?))",
            parameters=[sorted(ids), sorted(number for number in numbers if number is not None)],
        )
        by_place = {(row["file_id"], row["row_number"]): row for row in raw.iter_rows(named=True)}
        for duplicate in duplicates.iter_rows(named=True):
            old = by_place.get((duplicate["file_id"], duplicate["row_number"]), {})
            new = by_place.get((duplicate["kept_file_id"], duplicate["kept_row_number"]))
            rows.append(
                {
                    "feed": feed.name,
                    "file_name": duplicate["file_name"],
                    "row_number": duplicate["row_number"],
                    "kept_from": names.get(duplicate["kept_file_id"], duplicate["kept_file_id"]),
                    "kept_row_number": duplicate["kept_row_number"],
                    "partition_date": duplicate["partition_date"],
                    "key": _key_words(feed, old),
                    "changes": _changes(feed, old, new),
                }
            )
    return pl.DataFrame(rows)


def as_received(row_json: str, feed: Feed, *, reveal: bool) -> dict[str, str | None]:
    """The values of a row as its file had them, personal ones hidden unless they are to be revealed."""
    row: dict[str, str | None] = json.loads(row_json)
    return row if reveal else TABLES[feed.raw_table].masked(row)


def waive(
    lakehouse: Lakehouse, selection: Selection, withheld: pl.DataFrame, *, who: str, why: str, now: datetime
) -> tuple[int, int]:
    """Accept the selected rows as lost: how many were waived, and how many were left since they have other reasons too.

    They stay in the quarantine, and count neither as open work nor against the reject budget. The waivers and their
    entry in governance.audit_log are one transaction. Raises `QuarantineError` where nothing is to be waived.
    """
    with table_locks(lakehouse.settings, [WORK_LOCK]):
        rows = rejected_rows(lakehouse, selection, withheld).filter(pl.col("state") != "waived")
        if rows.is_empty():
            raise QuarantineError("no open row is as selected; `retail-platform quarantine list` shows those there are")
        chosen = rows
        if selection.reasons:
            others = pl.col("kinds").list.set_difference(list(selection.reasons)).list.len()
            chosen = rows.filter(others == 0)
            if chosen.is_empty():
                raise QuarantineError(
                    f"each of the {rows.height} rows has other reasons too; name all of them with --reason"
                )
        feeds = ", ".join(chosen["feed"].unique(maintain_order=True))
        details = {**selection.facts(), "rows": chosen.height}
        entry = audit_entry(who=who, action="waive", subject=feeds, reason=why, details=details, decided_at=now)
        table = TABLES["quarantine.waivers"]
        waivers = chosen.with_columns(audit_id=pl.lit(entry["audit_id"].item())).select(table.polars_schema.names())
        lakehouse.commit(
            [Append(table, table.validate(waivers)), Append(TABLES["governance.audit_log"], entry)],
            Provenance(asset=table.name, run_id=f"audit {entry['audit_id'].item()}"),
        )
    return chosen.height, rows.height - chosen.height


def note_reveal(lakehouse: Lakehouse, rows: pl.DataFrame, *, who: str, why: str | None, now: datetime) -> None:
    """Write down who is about to see the personal values of these rows; called before they are shown."""
    table = TABLES["governance.audit_log"]
    seen = [f"{file_id[:12]} row {number}" for file_id, number in rows.select("file_id", "row_number").iter_rows()]
    entry = audit_entry(
        who=who,
        action="reveal",
        subject=", ".join(rows["feed"].unique(maintain_order=True)),
        reason=why,
        details={"rows": seen},
        decided_at=now,
    )
    lakehouse.commit([Append(table, entry)], Provenance(table.name, run_id=f"audit {entry['audit_id'].item()}"))


def files_of(lakehouse: Lakehouse, selection: Selection) -> pl.DataFrame:
    """The files that a selection names: feed, file_id, file_name."""
    files = lakehouse.read("raw.ingested_files", columns=["feed", "file_id", "file_name"])
    if selection.feed is not None:
        files = files.filter(feed=selection.feed)
    if selection.file is None:
        return files
    named = pl.col("file_name") == selection.file
    if len(selection.file) >= _FEWEST_DIGITS_OF_AN_ID:
        named = named | pl.col("file_id").str.starts_with(selection.file)
    found = files.filter(named)
    if found.is_empty():
        close = get_close_matches(selection.file, files["file_name"].unique().to_list(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise QuarantineError(f"no file {selection.file} was taken in{hint}")
    return found


def _with_kinds(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(kinds=pl.col("reasons").list.eval(kind_of(pl.element())).list.unique(maintain_order=True))


def _refuse_unknown_reasons(rows: pl.DataFrame, selection: Selection) -> None:
    known = rows["kinds"].explode().drop_nulls().unique().sort().to_list()
    unknown = [reason for reason in selection.reasons if reason not in known]
    if unknown:
        raise QuarantineError(
            f"no selected row has the reason {', '.join(map(repr, unknown))}; those there are: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )


def _some_files() -> pl.Expr:
    names = pl.col("file_name").unique(maintain_order=True)
    more = pl.when(names.len() > _SHOWN_FILES).then(pl.format(" and {} more", names.len() - _SHOWN_FILES))
    return pl.format("{}{}", names.head(_SHOWN_FILES).str.join(", "), more.otherwise(pl.lit(""))).alias("files")


def _key_words(feed: Feed, row: Mapping[str, Any]) -> str:
    named = TABLES[feed.raw_table].masked(
        {name: row.get(name) for name in TABLES[feed.clean_table].grain if name in row}
    )
    return ", ".join(f"{name}={value}" for name, value in named.items() if value is not None)


def _changes(feed: Feed, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> str:
    """What the later row says otherwise, in words."""
    if new is None:
        return "the later file has no such row"
    personal = TABLES[feed.raw_table].personal_columns
    return ", ".join(
        f"{name}: {MASK} -> {MASK}" if name in personal else f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in feed.column_names
        if old.get(name) != new.get(name)
    )
