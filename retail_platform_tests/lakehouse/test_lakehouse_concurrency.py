"""Writers in several processes: nothing is lost, nothing is doubled, and a killed writer leaves no half of anything."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.lakehouse import LakeError, Lakehouse, ReplaceTable
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.locks import table_locks
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, sales
from retail_platform_tests.lakehouse.writer import COMMITS, ROWS

WRITER = Path(__file__).with_name("writer.py")
REPOSITORY = Path(__file__).parents[2]


def start_writer(settings: Settings, job: str, number: int) -> subprocess.Popen[str]:
    settings.home.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(settings.home), settings.catalog, job, str(number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("writers", [2, 4])
def test_writers_that_begin_together_without_a_lake_lose_nothing_and_double_nothing(
    lake: Lakehouse, writers: int
) -> None:
    processes = [start_writer(lake.settings, "race", number) for number in range(writers)]
    assert [line_of(process) for process in processes] == ["ready"] * writers
    (lake.settings.home / "go").touch()
    outcomes = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * writers, [errors for _, errors in outcomes]
    assert sum(output.count("ack") for output, _ in outcomes) == writers * (COMMITS + 1)

    shared = lake.read("race.shared_slice")
    assert shared.height == ROWS
    assert shared["units"].n_unique() == 1

    own = lake.query("SELECT day, count(*) AS rows, min(units) AS units FROM race.own_slices GROUP BY day")
    days = {MONDAY + timedelta(days=10 * w + n): (ROWS, w) for w in range(writers) for n in range(COMMITS)}
    assert {day: (rows, writer) for day, rows, writer in own.iter_rows()} == days

    appended = lake.read("race.appended").select("store", "units").sort("store", "units")
    assert appended.rows() == [(f"W{writer}", number) for writer in range(writers) for number in range(COMMITS)]
    assert fsck(lake) == []


def test_a_writer_that_is_killed_leaves_every_acknowledged_slice_whole_and_no_half_one(lake: Lakehouse) -> None:
    chance = random.Random(20170101)  # noqa: S311
    acknowledged: set[int] = set()
    lake.settings.home.mkdir(parents=True)
    (lake.settings.home / "go").touch()
    for _ in range(5):
        process = start_writer(lake.settings, "loop", max(acknowledged, default=-1) + 1)
        assert line_of(process) == "ready"
        seen = [line_of(process)]
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        output, errors = process.communicate()
        seen += output.split("\n")[:-1]
        assert process.returncode == -9, errors
        acknowledged |= {int(line.removeprefix("ack ")) for line in seen}

    for table in ("shop.sales", "shop.stock"):
        slices = dict(lake.query(f"SELECT min(units), count(*) FROM {table} GROUP BY day").iter_rows())
        assert set(slices.values()) == {ROWS}
        assert acknowledged <= set(slices)
        assert set(slices) <= acknowledged | {max(acknowledged) + 1}
    assert_frame_equal(lake.read("shop.sales"), lake.read("shop.stock"), check_row_order=False)
    assert fsck(lake) == []
    # The killed writers' locks ended with them.
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 1))], BY)


def impatient(lake: Lakehouse, **changes: float) -> Lakehouse:
    limits = lake.settings.lake.model_copy(update=changes)
    return Lakehouse(lake.settings.model_copy(update={"lake": limits}))


def test_a_table_that_stays_locked_is_named_after_the_time_out(lake: Lakehouse) -> None:
    hurried = impatient(lake, lock_timeout_seconds=0.2)
    hurried.commit([ReplaceTable(STOCK, sales(MONDAY, 1))], BY)

    with table_locks(lake.settings, ["shop.sales"]):
        with pytest.raises(LakeError, match=r"table shop\.sales is being written .* lake\.lock_timeout_seconds"):
            hurried.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 2))], BY)
        hurried.commit([ReplaceTable(STOCK, sales(MONDAY, 3))], BY)
    hurried.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    assert_frame_equal(lake.read("shop.stock"), sales(MONDAY, 3))


def interfering(lake: Lakehouse, times: int) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A step of a lazy frame during which a stranger, who takes no lock, deletes from the table being written."""
    left = [times]

    def interfere(frame: pl.DataFrame) -> pl.DataFrame:
        if left[0]:
            left[0] -= 1
            with lake.connection(read_only=False) as stranger:
                stranger.execute("DELETE FROM shop.sales WHERE units = (SELECT min(units) FROM shop.sales)")
        return frame

    return interfere


def test_a_conflict_is_tried_again_with_the_whole_of_a_stream(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(10))), ReplaceTable(STOCK, STOCK.empty())], BY)
    rows = sales(TUESDAY, *range(500))
    stream = rows.to_arrow().to_reader(max_chunksize=7)
    meanwhile = sales(TUESDAY, 9).lazy().map_batches(interfering(lake, 1), schema=STOCK.polars_schema)

    commit = lake.commit([ReplaceTable(SALES, stream), ReplaceTable(STOCK, meanwhile)], BY)
    assert commit.attempts == 2
    assert_frame_equal(lake.read("shop.sales"), rows, check_row_order=False)
    assert_frame_equal(lake.read("shop.stock"), sales(TUESDAY, 9))
    assert list((lake.settings.home / "spool").iterdir()) == []
    assert fsck(lake, orphans_older_than=timedelta(0)) == []


def test_a_conflict_that_does_not_end_is_given_up_with_its_reason(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(10))), ReplaceTable(STOCK, STOCK.empty())], BY)
    meanwhile = sales(TUESDAY, 9).lazy().map_batches(interfering(lake, 99), schema=STOCK.polars_schema)

    hurried = impatient(lake, commit_attempts=2)
    with pytest.raises(LakeError, match="gave up after 2 attempts"):
        hurried.commit([ReplaceTable(SALES, sales(TUESDAY, 1)), ReplaceTable(STOCK, meanwhile)], BY)
    assert lake.read("shop.stock").is_empty()
    assert set(lake.read("shop.sales")["day"]) == {MONDAY}
