"""Writers that get into each other's way: who waits, who tries again, and when it is given up.

Not here: writers in several processes, and killed ones; those are scenarios of the fault matrix (`faults/`).
"""

from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.lakehouse import LakeError, Lakehouse, ReplaceTable
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.locks import table_locks
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, sales


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
