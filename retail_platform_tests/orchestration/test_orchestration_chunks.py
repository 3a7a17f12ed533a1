"""Much work in pieces: every day is in one chunk, and results come in order."""

import time
from collections.abc import Generator
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.orchestration.chunks import chunks_of_days, worked_ahead
from retail_platform_tests.simulated_retailer import SIMULATION, Retailer


@pytest.mark.parametrize("most_rows", [1, 500, 10**9])
def test_every_day_of_a_range_is_in_one_chunk_of_bounded_size(finished: Retailer, most_rows: int) -> None:
    days = SIMULATION.start_date - timedelta(days=3), SIMULATION.last_date
    chunks = list(chunks_of_days(finished.lake, "clean.sales", "business_date", days, most_rows))
    flat = [day for chunk in chunks for day in chunk]
    assert flat[0] == days[0]
    assert flat[-1] == days[1]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(flat))
    counts = finished.lake.query("SELECT business_date, count(*) FROM clean.sales GROUP BY ALL")
    rows: dict[date, int] = dict(counts.iter_rows())
    selling = [[rows[day] for day in chunk if day in rows] for chunk in chunks]
    assert all(sum(chunk) <= most_rows or len(chunk) == 1 for chunk in selling)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_results_come_in_the_order_of_the_items(delays: list[int], ahead: int) -> None:
    def work(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 1000)
        return item[0]

    assert list(worked_ahead(work, enumerate(delays), ahead)) == list(range(len(delays)))


def test_no_more_than_so_many_items_are_begun_before_their_results_are_taken() -> None:
    begun: list[int] = []
    results = worked_ahead(begun.append, range(100), 3)
    assert isinstance(results, Generator)
    next(results)
    time.sleep(0.05)
    assert begun == [0, 1, 2, 3]
    results.close()


def test_an_error_is_raised_in_the_place_of_its_item() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = worked_ahead(work, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
