"""Rows of a PostgreSQL table or query, as extracts of a feed: new ones by a cursor column, late and changed ones again.

Here: one attempt at an extract. Not here: that it is tried again and taken in (`orchestration/extraction.py`), and
what a row means (`cleaning/`).

Extracts cut the axis of the cursor column into *stretches*, each from after one position to another. Every file holds
rows of one stretch. An extract reads the stretches within the look-back again, and compares the rows of each with
those that the lake holds of it, as text and with multiplicity; rows that are new or changed are landed as a further
file of the stretch. Then it reads on after the last position. It all happens in one read-only snapshot, in the order
of the cursor: whatever has been landed when the connection breaks is a whole beginning of the extract, from the end of
which the next attempt goes on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from retail_platform.contracts import FEEDS
from retail_platform.settings import OFFSET_IN_TEXT, FeedSettings, PostgresSource
from retail_platform.sources.extracts import (
    ExtractWriter,
    Landed,
    SourceError,
    SourceInterrupted,
    TakenIn,
    not_yet_taken_in,
    secret,
)
from retail_platform.sources.landing import LandingFile

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

CURSOR = "_cursor"
_BATCH_ROWS = 20_000
_WHOLE_NUMBERS = {"int2", "int4", "int8"}
_TIMES = {"date", "timestamp", "timestamptz"}
_WITHOUT_TEXT = {"bytea", "money"}
# A clock ahead of ours is no mistake, and a time without a zone may be of a place east of us; years are.
_UPPER_LIMIT = {
    "date": "(current_date + 1)",
    "timestamp": "(localtimestamp + interval '14 hours')",
    "timestamptz": "(now() + interval '1 hour')",
}


@dataclass(frozen=True)
class Stretch:
    """A piece of the cursor's axis, which some extracts hold: after `after` (None: from the beginning) to `to`."""

    after: str | None
    to: str
    rows: int
    file_ids: tuple[str, ...]


def extract(name: str, source: PostgresSource, form: FeedSettings, landing: Path, taken_in: TakenIn) -> Landed:
    """Land what the source has and the lake has not. Without anything new, no file is landed.

    `form` is the form of the feed's extracts: times with a zone are written by its clock.

    Raises `SourceInterrupted` where the connection cannot be made or breaks, after which everything that was landed
    before may be taken in, and `SourceError` where the source is not what the settings say; the message lists every
    mismatch.
    """
    stretches = stretches_of(taken_in.extracts)
    position = stretches[-1].to if stretches else None
    files: list[LandingFile] = []
    with _snapshot(name, source, form) as reader:
        reader.refuse_mismatches()
        landing_place = _LandingPlace(landing, source.feed, name, reader.columns)
        if position is not None:
            again = reader.within_look_back(stretches, position)
            for group in _groups(again, source.rows_per_file):
                files += _land_late_rows(reader, landing_place, group, taken_in)
        files += _land_new_rows(reader, landing_place, position, source.rows_per_file)
        return Landed(tuple(files), tuple(reader.notes()))


def probe(name: str, source: PostgresSource, form: FeedSettings) -> str:
    """Whether the source answers and fits its feed, in words; raises as `extract` does."""
    with _snapshot(name, source, form) as reader:
        reader.refuse_mismatches()
        return f"{len(reader.columns)} columns of {source.feed}, by {source.cursor}"


def stretches_of(extracts: pl.DataFrame) -> list[Stretch]:
    """The stretches that extracts cover, in the order of the cursor. `extracts` is `TakenIn.extracts`."""
    found: dict[tuple[str | None, str], list[tuple[str, int]]] = {}
    for after, to, file_id, rows in extracts.select("extracted_after", "extracted_to", "file_id", "rows").iter_rows():
        found.setdefault((after, to), []).append((file_id, rows))
    stretches = [
        Stretch(after, to, sum(rows for _, rows in files), tuple(file_id for file_id, _ in files))
        for (after, to), files in found.items()
    ]
    return sorted(stretches, key=lambda stretch: position_order(stretch.to))


def position_order(position: str) -> tuple[int, str]:
    """Sorts positions of one source as PostgreSQL sorts the cursor's values.

    They are whole numbers, or dates and times in ISO form, whose order is that of their letters.
    """
    return (int(position), "") if position.lstrip("-").isdigit() else (0, position)


class _Reader:
    """One read-only snapshot of the source."""

    def __init__(
        self, name: str, source: PostgresSource, form: FeedSettings, connection: "psycopg.Connection[Any]"
    ) -> None:
        self.name, self.source, self.form, self._connection = name, source, form, connection
        self._numbers = count(1)

    @cached_property
    def types(self) -> dict[str, str]:
        """Column of the source -> PostgreSQL's name of its type."""
        described = self._connection.execute(self._compose("SELECT * FROM {relation} LIMIT 0")).description or ()
        names = dict(
            self._connection.execute(
                "SELECT oid::int, typname FROM pg_type WHERE oid = ANY(%s)",
                [[column.type_code for column in described]],
            ).fetchall()
        )
        return {column.name: names[column.type_code] for column in described}

    @cached_property
    def columns(self) -> list[str]:
        """The feed's columns that the source has."""
        return [c for c in FEEDS[self.source.feed].column_names if self._in_source(c) in self.types]

    def refuse_mismatches(self) -> None:
        source, feed = self.source, FEEDS[self.source.feed]
        by_time = self.form.business_date_from
        required = [by_time if by_time and c == feed.date_column else c for c in feed.required_columns]
        wrong = [
            f"column {self._in_source(c)} is missing, which the feed {feed.name} needs as {c}"
            for c in required
            if c not in self.columns
        ]
        wrong += [
            f"columns.{c} names {in_source}, which is missing"
            for c, in_source in source.columns.items()
            if in_source not in self.types and c not in required
        ]
        kinds = {c: self.types[self._in_source(c)] for c in self.columns}
        wrong += [
            f"column {c} is of the type {kinds[c]}, which has no plain text" for c in kinds if kinds[c] in _WITHOUT_TEXT
        ]
        if self.form.time_zone is None:
            wrong += [
                f"column {c} has times with a zone, and those of the feed are local to the store: set "
                f"feeds.{feed.name}.time_zone, for example to UTC"
                for c in kinds
                if kinds[c] == "timestamptz"
            ]
        if self.types.get(source.cursor) is None:
            wrong.append(f"the cursor column {source.cursor} is missing")
        elif self.types[source.cursor] not in _WHOLE_NUMBERS | _TIMES:
            wrong.append(
                f"the cursor column {source.cursor} is of the type {self.types[source.cursor]}; it must be a whole "
                "number, a date or a time"
            )
        if "transaction_id" in self.columns and "line_number" not in self.columns:
            # Lines would be numbered anew in each file, and a changed third line take the place of the first one.
            wrong.append("receipts (transaction_id) need their line_number, as a receipt may be spread over extracts")
        if wrong:
            raise SourceError(
                f"source {self.name}: {'; '.join(wrong)}. It has the columns {', '.join(self.types)}. Mend "
                f"[sources.{self.name}] in retail.toml, or give it a query that names the columns as docs/feeds.md does"
            )

    def within_look_back(self, stretches: Sequence[Stretch], position: str) -> list[Stretch]:
        """The stretches that reach into the look-back; always the last one, as rows may still come at its end."""
        kind, back = self.types[self.source.cursor], self.source.look_back
        step = {"date": "ceil(%s)::int", "timestamp": "%s * interval '1 day'", "timestamptz": "%s * interval '1 day'"}
        low = str(self._value(f"SELECT (%s::{kind} - {step.get(kind, '%s::bigint')})::text", [position, back]))
        return [s for s in stretches if position_order(s.to) > position_order(low)] or [stretches[-1]]

    def batches(self, after: str | None, to: str | None) -> Iterator[pl.DataFrame]:
        """Rows after one position to another, in the order of the cursor: the feed's columns and the cursor as text."""
        kind = self.types[self.source.cursor]
        where = ["{cursor} IS NOT NULL"]
        if after is not None:
            where.append(f"{{cursor}} > {{after}}::{kind}")
        if to is not None:
            where.append(f"{{cursor}} <= {{to}}::{kind}")
        elif kind in _UPPER_LIMIT:
            # One row from the year 2099 would carry the position there, and no other row would be seen again.
            where.append(f"{{cursor}} <= {_UPPER_LIMIT[kind]}")
        statement = self._compose(
            f"SELECT {{columns}}, {{cursor}}::text FROM {{relation}} WHERE {' AND '.join(where)} ORDER BY {{cursor}}",
            after=after,
            to=to,
        )
        schema = dict.fromkeys([*self.columns, CURSOR], pl.String)
        with self._connection.cursor(name=f"extract_{next(self._numbers)}") as rows:
            rows.execute(statement)
            while batch := rows.fetchmany(min(_BATCH_ROWS, self.source.rows_per_file)):
                yield pl.DataFrame(batch, schema=schema, orient="row")

    def notes(self) -> Iterator[str]:
        without = self._value(self._compose("SELECT count(*) FROM {relation} WHERE {cursor} IS NULL"))
        if without:
            yield f"{without} rows have no {self.source.cursor} and were not taken"
        limit = _UPPER_LIMIT.get(self.types[self.source.cursor])
        if limit:
            ahead = self._value(self._compose(f"SELECT count(*) FROM {{relation}} WHERE {{cursor}} > {limit}"))
            if ahead:
                yield f"{ahead} rows have a {self.source.cursor} that lies in the future and were left until then"

    def _compose(self, statement: str, after: str | None = None, to: str | None = None) -> "sql.Composed":
        # Positions are literals and not parameters: with parameters, a per cent sign in the query would count as one.
        from psycopg import sql

        source = self.source
        relation: sql.Composable
        if source.table is not None:
            relation = sql.Identifier(*source.table.split("."))
        else:
            relation = sql.SQL(f"({str(source.query).rstrip().rstrip(';')}) AS source")
        return sql.SQL(statement).format(
            relation=relation,
            cursor=sql.Identifier(source.cursor),
            after=sql.Literal(after),
            to=sql.Literal(to),
            columns=sql.SQL(", ").join(map(self._as_text, self.columns)) if "{columns}" in statement else sql.SQL(""),
        )

    def _as_text(self, column: str) -> "sql.Composed":
        from psycopg import sql

        in_source, zone = self._in_source(column), self.form.time_zone
        template = "{column}::text"
        if self.types[in_source] == "timestamptz":
            template = "({column} AT TIME ZONE {zone})::text"
            if zone == OFFSET_IN_TEXT:
                template, zone = f"{template} || 'Z'", "UTC"
        return sql.SQL(template).format(column=sql.Identifier(in_source), zone=sql.Literal(zone))

    def _in_source(self, column: str) -> str:
        return self.source.columns.get(column, column)

    def _value(self, statement: Any, parameters: Sequence[Any] = ()) -> Any:
        row = self._connection.execute(statement, parameters or None).fetchone()
        return row[0] if row else None


@dataclass
class _LandingPlace:
    """Where the files of one extract go, numbered in the order of the cursor."""

    landing: Path
    feed: str
    source: str
    columns: Sequence[str]

    def __post_init__(self) -> None:
        self._begun = datetime.now(UTC)
        self._numbers = count(1)

    def file(self) -> ExtractWriter:
        number = next(self._numbers)
        return ExtractWriter(self.landing, self.feed, self.source, self.columns, self._begun, number)


def _land_late_rows(
    reader: _Reader, place: _LandingPlace, group: Sequence[Stretch], taken_in: TakenIn
) -> Iterator[LandingFile]:
    """Read stretches that follow one another again; for each that has rows which the lake has not, a file."""
    columns = list(reader.columns)
    stretch_of = {file_id: number for number, stretch in enumerate(group) for file_id in stretch.file_ids}
    known = taken_in.rows_of(list(stretch_of)).select(
        *columns, pl.col("file_id").replace_strict(stretch_of, return_dtype=pl.Int64).alias("stretch")
    )
    ends = [position_order(stretch.to) for stretch in group]
    found = [_with_stretch(batch, ends) for batch in reader.batches(group[0].after, group[-1].to)]
    if not found:
        return
    new = not_yet_taken_in(pl.concat(found).select(known.columns), known)
    for number, stretch in enumerate(group):
        rows = new.filter(stretch=number)
        if rows.height:
            with place.file() as file:
                file.write(rows)
                yield file.land(stretch.after, stretch.to)


def _with_stretch(batch: pl.DataFrame, ends: Sequence[tuple[int, str]]) -> pl.DataFrame:
    from bisect import bisect_left

    positions = batch[CURSOR].unique()
    number = {position: bisect_left(ends, position_order(position)) for position in positions}
    return batch.with_columns(pl.col(CURSOR).replace_strict(number, return_dtype=pl.Int64).alias("stretch"))


def _land_new_rows(
    reader: _Reader, place: _LandingPlace, position: str | None, rows_per_file: int
) -> Iterator[LandingFile]:
    """Read on after the position, into files of about so many rows; rows of one cursor value are never separated."""
    batches = reader.batches(position, None)
    rest = next(batches, None)
    while rest is not None:
        with place.file() as file:
            end = ""
            while rest is not None:
                if file.rows >= rows_per_file:
                    # The file is full, and ends where the cursor moves on.
                    same = rest.filter(pl.col(CURSOR) == end)
                    file.write(same)
                    if same.height < rest.height:
                        rest = rest.filter(pl.col(CURSOR) != end)
                        break
                else:
                    file.write(rest)
                    end = rest[CURSOR][-1]
                rest = next(batches, None)
            yield file.land(position, end)
            position = end


def _groups(stretches: Sequence[Stretch], rows: int) -> Iterator[list[Stretch]]:
    """Stretches that follow one another, together about so many rows."""
    group: list[Stretch] = []
    for stretch in stretches:
        group.append(stretch)
        if sum(s.rows for s in group) >= rows:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def _snapshot(name: str, source: PostgresSource, form: FeedSettings) -> Iterator[_Reader]:
    try:
        import psycopg
    except ImportError:
        raise SourceError(
            f"source {name}: the driver for PostgreSQL is missing; pip install 'retail-platform[postgres]' brings it"
        ) from None
    try:
        with psycopg.connect(
            source.address,
            password=_password(name, source),
            connect_timeout=max(2, int(source.timeout_seconds)),
            application_name=f"retail-platform source {name}",
            keepalives_idle=30,
            tcp_user_timeout=int(source.timeout_seconds * 1000),
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            for setting, value in (
                ("statement_timeout", f"{int(source.timeout_seconds * 1000)}ms"),
                ("timezone", "UTC"),
                ("datestyle", "ISO, YMD"),
                ("extra_float_digits", "1"),
            ):
                connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
            yield _Reader(name, source, form, connection)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise SourceInterrupted(
            f"source {name}: the connection to {_place(source)} failed ({_first_line(error)}); look whether the server "
            "runs and the settings are right"
        ) from None
    except psycopg.Error as error:
        raise SourceError(
            f"source {name}: the database refused to read ({_first_line(error)}); mend [sources.{name}] in retail.toml"
        ) from None


def _password(name: str, source: PostgresSource) -> str | None:
    """Without a variable the driver's own ways hold: a password file, or none."""
    if source.password_variable is None:
        return None
    return secret(name, source.password_variable)


def _place(source: PostgresSource) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(source.address)
    return f"{parts.hostname or 'this machine'}{parts.path}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
