"""The law of ingestion: whatever is landed, whenever a process dies and however often it is begun again, raw holds each
content once, and of each file clean + rejected + duplicate = arrived.

The code is the real one; a process dies by an exception that nobody catches, at a named point of a commit, and the next
step begins with a lake that is opened anew. The fault matrix does the same with `kill -9`.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import polars as pl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from retail_platform.contracts import FEEDS, TABLES
from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform.monitoring.accounting import row_identity
from retail_platform.orchestration.assets.clean import clean_days, judge_rows, raw_columns, references_of
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.orchestration.sensors import ranges
from retail_platform.orchestration.staleness import pending_days
from retail_platform.settings import FeedSettings
from retail_platform_tests.simulated_retailer import Retailer

# An example takes seconds; to shorten one that failed takes as long as a hundred of them.
QUICK = settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
EFFORT = settings(max_examples=100, deadline=None) if settings.get_current_profile_name() == "thorough" else QUICK
SALES = FEEDS["pos_sales"]
HEADER = "business_date,store_id,item_id,quantity\n"

Row = tuple[str, str, str, str]

Death = tuple[CommitStep, int] | None
"""The point of a commit at which a process dies, and in which of its commits; or that it lives."""

DEATHS: list[Death] = [None, ("inserted", 1), ("synced", 1), ("committed", 1), ("committed", 2), ("inserted", 2)]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["2017-03-06", "2017-03-06", "2017-03-07", "06.03.2017"]),
        st.sampled_from(["S1", "S1", "S2", ""]),
        st.sampled_from(["MILK", "SOUP"]),
        st.sampled_from(["1", "1", "2", "many"]),
    ),
    min_size=1,
    max_size=6,
)


@dataclass(frozen=True)
class Round:
    """Files that land, then a process that takes them in and one that cleans, each of which may die.

    New files may be late or correct earlier ones, since they have few stores and days; a file that was landed before
    comes again under another name, or without its first row.
    """

    new: list[list[Row]]
    again: int | None
    shortened: int | None
    replaces: Literal["row", "store_day"]
    taking_in: Death
    cleaning: Death


ROUNDS = st.builds(
    Round,
    new=st.lists(ROWS, min_size=1, max_size=2),
    again=st.sampled_from([None, 0, 1, 2]),
    shortened=st.sampled_from([None, 0, 1, 2]),
    replaces=st.sampled_from(["row", "store_day"]),
    taking_in=st.sampled_from(DEATHS),
    cleaning=st.sampled_from(DEATHS),
)

FILES_THAT_ARE_NOT_THERE_ONCE = """
    SELECT file_id, stored.rows, numbers, ledger.rows
    FROM (FROM raw.ingested_files WHERE rows > 0) AS ledger
    FULL JOIN (
        SELECT file_id, count(*) AS rows, count(DISTINCT row_number) AS numbers FROM raw.pos_sales GROUP BY ALL
    ) AS stored USING (file_id)
    WHERE ledger.rows IS DISTINCT FROM stored.rows OR stored.rows IS DISTINCT FROM numbers
"""
ROWS_THAT_ARE_NOT_PLACED_ONCE = """
    SELECT file_id, partition_date, count(arrived.ingested_at) AS arrived, count(place) AS placed
    FROM raw.pos_sales AS arrived FULL JOIN (
        SELECT source_file_id AS file_id, source_row_number AS row_number, 'clean' AS place FROM clean.sales
        UNION ALL SELECT file_id, row_number, 'rejected' FROM quarantine.rejected_rows
        UNION ALL SELECT file_id, row_number, 'duplicate' FROM quarantine.duplicate_rows
    ) AS placed USING (file_id, row_number)
    GROUP BY ALL
    HAVING count(place) NOT IN (0, count(arrived.ingested_at)) OR count(DISTINCT row_number) <> count(*)
"""
"""Of what is cleaned in one transaction, a day, either every row of a file has its place or none yet; none has two."""


class Died(BaseException):
    """The end of a process: nothing in the platform may catch it."""


class Shop:
    """A home into which files of point-of-sale lines come, and what was landed there: the number of rows by content."""

    def __init__(self, retailer: Retailer) -> None:
        self.settings = retailer.settings
        self.lake = Lakehouse(self.settings)
        self.texts: list[str] = []
        self.landed: dict[str, int] = {}

    def live_through(self, happens: Round) -> None:
        earlier = self.texts[:]
        for rows in happens.new:
            self._land("".join(f"{','.join(row)}\n" for row in rows))
        if earlier and happens.again is not None:
            self._land(earlier[happens.again % len(earlier)])
        if earlier and happens.shortened is not None:
            self._land(earlier[happens.shortened % len(earlier)].partition("\n")[2])
        # However bad a day is, it is written: to be withheld is another law.
        form = FeedSettings(replaces=happens.replaces, reject_budget=1)
        self.settings = self.settings.model_copy(update={"feeds": {"pos_sales": form}})
        self.lake = Lakehouse(self.settings)
        self.take_in(happens.taking_in)
        self.clean(happens.cleaning)

    def take_in(self, death: Death = None) -> None:
        self._process(death, lambda lake: ingest_feed(lake, "pos_sales", "run"))

    def clean(self, death: Death = None) -> None:
        for span in ranges(self.pending()):
            self._process(death, partial(clean_days, feed=SALES, days=span, run_id="run"))

    def pending(self) -> list[date]:
        # No master was ever written, so no commit of one makes a day pending.
        return pending_days(self.lake, SALES, {})

    def _land(self, text: str) -> None:
        content = (HEADER + text).encode()
        (self.settings.landing / "pos_sales" / f"{len(self.texts):03}.csv").write_bytes(content)
        self.texts.append(text)
        self.landed[hashlib.sha256(content).hexdigest()] = text.count("\n")

    def _process(self, death: Death, work: Callable[[Lakehouse], object]) -> None:
        """Do some work, which may end in the middle of a commit, and look at what must hold whatever happened, with a
        lake that was not open then."""
        commits = count(1)

        def on_step(step: CommitStep) -> None:
            if death is not None and step == death[0] and next(commits) == death[1]:
                raise Died

        with suppress(Died):
            work(Lakehouse(self.settings, on_step=on_step))
        lake = self.lake = Lakehouse(self.settings)
        assert lake.query(FILES_THAT_ARE_NOT_THERE_ONCE).rows() == []
        assert lake.query(ROWS_THAT_ARE_NOT_PLACED_ONCE).rows() == []
        known = dict(lake.read("raw.ingested_files", columns=["file_id", "rows"]).iter_rows())
        assert known.items() <= self.landed.items()

    def every_file_is_accounted_for(self) -> None:
        lake = self.lake
        assert set(lake.read("raw.ingested_files")["file_id"]) == set(self.landed), "every content is in the ledger"
        columns = {"clean.sales": "source_file_id"}
        counts = [
            lake.query(f"SELECT {columns.get(table, 'file_id')} AS file_id, count(*) AS rows FROM {table} GROUP BY ALL")
            for table in ("raw.pos_sales", "clean.sales", "quarantine.rejected_rows", "quarantine.duplicate_rows")
        ]
        account = row_identity(*counts)
        assert account.filter(pl.col("difference") != 0).rows() == []
        assert dict(account.select("file_id", "arrived").rows()) == {f: n for f, n in self.landed.items() if n}

    def clean_is_what_raw_gives(self) -> None:
        """The same as if everything had been there at once and nothing had ever died."""
        lake = self.lake
        raw = lake.read(SALES.raw_table, columns=raw_columns(SALES))
        at_once = judge_rows(lake, SALES, raw, references_of(lake, SALES))
        for name, rows in (
            ("clean.sales", at_once.clean),
            ("quarantine.rejected_rows", at_once.rejected.drop("rejected_at")),
            ("quarantine.duplicate_rows", at_once.duplicates),
        ):
            grain = TABLES[name].grain
            assert_frame_equal(lake.read(name).select(rows.columns).sort(grain), rows.sort(grain))


@EFFORT
@given(st.lists(ROUNDS, min_size=5, max_size=7))
def test_every_row_is_accounted_for_whatever_lands_and_whenever_a_process_dies(
    opening_day: Retailer, rounds: list[Round]
) -> None:
    with TemporaryDirectory(dir=opening_day.settings.home.parent) as folder:
        shop = Shop(opening_day.copy_to(Path(folder) / "home"))
        for happens in rounds:
            shop.live_through(happens)
        shop.take_in()
        shop.clean()
        assert shop.pending() == []
        shop.every_file_is_accounted_for()
        shop.clean_is_what_raw_gives()
