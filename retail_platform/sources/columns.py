"""The columns of a landing file held against its feed and against the last file of that feed.

Here: which columns a feed takes from a file, what makes a file unusable, and every difference in words with its
remedy. Pure. Not here: how the columns of a file are found (`formats.py`), and what becomes of a difference
(`orchestration/ingestion.py`).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import polars as pl

from retail_platform.cleaning.text import expected, read_as, trimmed
from retail_platform.contracts.feeds import Feed
from retail_platform.settings import FeedSettings

SAMPLE_ROWS = 1000
"""So many rows at the beginning of a file tell whether a column can be read as what its feed declares."""

_OTHER_DELIMITERS = (",", ";", "\t", "|")
_TEXT_TYPES = ("text", "string", "large_string", "string_view")


@dataclass(frozen=True)
class FileColumns:
    """The columns of one file in order, each with its type: the Arrow type of Parquet, the kind of JSON, else text."""

    format: str
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    def as_json(self) -> str:
        """The text that the ledger keeps."""
        return json.dumps({"format": self.format, "columns": self.columns}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "FileColumns":
        facts = json.loads(text)
        return cls(facts["format"], tuple((name, kind) for name, kind in facts["columns"]))


@dataclass(frozen=True)
class Difference:
    """One way in which a file differs from what was expected. `alert` where somebody should look at it."""

    kind: Literal["unknown", "gained", "lost", "renamed", "reordered", "retyped", "unreadable"]
    message: str
    alert: bool


def name_in_file(column: str, settings: FeedSettings) -> str:
    return settings.columns.get(column, column)


def wanted_columns(feed: Feed, settings: FeedSettings) -> dict[str, str]:
    """The columns that are taken in, those admitted by setting last, and the name of each in the file."""
    names = [*feed.column_names, *settings.extra_columns]
    return {name: name_in_file(name, settings) for name in names}


def required_columns(feed: Feed, settings: FeedSettings) -> list[str]:
    """Columns that no file may lack; where the business day is declared to come from a time, that and not the day."""
    instead = {feed.date_column: settings.business_date_from} if settings.business_date_from else {}
    return [instead.get(name) or name for name in feed.required_columns]


def why_unusable(feed: Feed, settings: FeedSettings, columns: Sequence[str]) -> tuple[list[str], str] | None:
    """What forbids taking a file in, with the remedy: required columns that are missing, a name that stands twice."""
    missing = [name for name in required_columns(feed, settings) if name_in_file(name, settings) not in columns]
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    problems, remedies = [], []
    if missing:
        names = ", ".join(
            name
            if name == name_in_file(name, settings)
            else f"{name} (named {name_in_file(name, settings)} in retail.toml)"
            for name in missing
        )
        problems.append(f"required columns are missing: {names}; the file has: {_listed(columns)}")
        remedies.append(_remedy_for_missing(feed, settings, missing, columns))
    if twice:
        problems.append(f"column names stand more than once in the header: {_listed(twice)}")
        remedies.append("Give each column a name of its own.")
    return (problems, " ".join(remedies)) if problems else None


def differences(
    feed: Feed, settings: FeedSettings, columns: FileColumns, before: FileColumns | None, before_name: str
) -> list[Difference]:
    """How a usable file differs from its feed, and from `before`, the columns of the last file that was taken in.

    What a column is called and where it stands is compared for all formats, types within one format.
    """
    wanted = set(wanted_columns(feed, settings).values())
    unknown = [name for name in columns.names if name not in wanted and name]
    if before is None:
        return _left_out(feed, unknown, "unknown", "not in the feed's format")
    lost = [name for name in before.names if name not in columns.names]
    gained = [name for name in columns.names if name not in before.names and name]
    renamed = _renamed(lost, gained)
    found = [_rename(feed, settings, old, new, before_name) for old, new in renamed.items()]
    for name in lost:
        if name in wanted and name not in renamed:
            message = f"column {name}, which {before_name} had, is gone and stays empty; if it has another name now, "
            found.append(Difference("lost", f"{message}say so under [feeds.{feed.name}.columns] in retail.toml", True))
    left_out = [name for name in gained if name in unknown and name not in renamed.values()]
    found += _left_out(feed, left_out, "gained", f"new since {before_name}")
    found += _left_out(feed, [n for n in unknown if n not in gained], "unknown", "not in the feed's format")
    found += [
        Difference("gained", f"column {name} is new since {before_name} and is taken in", False)
        for name in gained
        if name in wanted and name not in renamed.values()
    ]
    common = [name for name in before.names if name in columns.names]
    if common != [name for name in columns.names if name in before.names]:
        words = f"the columns stand in another order than in {before_name}; they are found by name, so nothing changes"
        found.append(Difference("reordered", words, False))
    if before.format == columns.format:
        types, now = dict(before.columns), dict(columns.columns)
        found += [
            _retype(feed, name, types[name], now[name], before_name)
            for name in common
            if name in wanted and now[name] != types[name] and "null" not in (now[name], types[name])
        ]
    return found


def unreadable_columns(feed: Feed, settings: FeedSettings, sample: pl.DataFrame) -> list[Difference]:
    """Columns of which no value of the sample can be read as what the feed declares.

    `sample` has the feed's columns as text. The rows of such a column will all be rejected; here it is said why.
    """
    found = []
    for column in feed.columns:
        if column.dtype == pl.String:
            continue
        text = sample.select(trimmed(pl.col(column.name))).to_series().drop_nulls()
        if (
            text.is_empty()
            or text.to_frame().select(read_as(column.dtype, pl.col(column.name), settings).is_not_null().any()).item()
        ):
            continue
        words = (
            f"none of the first {text.len():,} values of {name_in_file(column.name, settings)} can be read as "
            f"{expected(column.dtype, settings)}; if they are of another form, declare it under [feeds.{feed.name}]"
        )
        found.append(Difference("unreadable", words, True))
    return found


def _renamed(lost: Sequence[str], gained: Sequence[str]) -> dict[str, str]:
    """Old names and the new ones so close to them that they are probably the same column."""
    pairs: dict[str, str] = {}
    plain = {_plain(name): name for name in gained}
    for name in lost:
        close = get_close_matches(_plain(name), [p for p, new in plain.items() if new not in pairs.values()], n=1)
        if close:
            pairs[name] = plain[close[0]]
    return pairs


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _rename(feed: Feed, settings: FeedSettings, old: str, new: str, before_name: str) -> Difference:
    ours = next((name for name, in_file in wanted_columns(feed, settings).items() if in_file == old), None)
    words = f"column {old}, which {before_name} had, is gone and {new} has come; "
    if ours is None:
        return Difference("renamed", f"{words}neither is in the feed's format", False)
    setting = f"{ours} = {json.dumps(new, ensure_ascii=False)} under [feeds.{feed.name}.columns] in retail.toml"
    return Difference("renamed", f"{words}{ours} stays empty: if they are the same, set {setting}", True)


def _left_out(feed: Feed, names: Sequence[str], kind: Literal["unknown", "gained"], because: str) -> list[Difference]:
    if not names:
        return []
    words = f"columns left out, {because}: {_listed(names)}; feeds.{feed.name}.extra_columns in retail.toml admits them"
    return [Difference(kind, words, False)]


def _retype(feed: Feed, name: str, old: str, new: str, before_name: str) -> Difference:
    words = f"column {name} is {new} and was {old} in {before_name}; its values are taken as they are written now"
    became_text = new in _TEXT_TYPES and old not in _TEXT_TYPES
    if became_text:
        words += f": see whether keys still match, and declare another form under [feeds.{feed.name}] in retail.toml"
    return Difference("retyped", words, became_text)


def _remedy_for_missing(feed: Feed, settings: FeedSettings, missing: Sequence[str], columns: Sequence[str]) -> str:
    other_delimiters = [d for d in _OTHER_DELIMITERS if d != settings.delimiter and columns and d in columns[0]]
    if len(columns) == 1 and other_delimiters:
        seems = f"The fields seem to be separated by {other_delimiters[0]!r}"
        return f"{seems}: set feeds.{feed.name}.delimiter in retail.toml."
    free = [name for name in columns if name not in wanted_columns(feed, settings).values()]
    pairs = _renamed(missing, free)
    example = next(iter(pairs), missing[0])
    name = json.dumps(pairs[example], ensure_ascii=False) if pairs else '"name in the file"'
    return (
        "Add them to the file, or where they have other names there, say so in retail.toml under "
        f"[feeds.{feed.name}.columns], such as {example} = {name}."
    )


def _listed(names: Sequence[str], most: int = 50) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
