"""Much work in pieces: business days in chunks of bounded size, and several chunks worked on at once.

Here: how days are cut and how far work runs ahead. Not here: what is done with a chunk.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from typing import TypeVar

import polars as pl

from retail_platform.lakehouse import Lakehouse

Item = TypeVar("Item")
Result = TypeVar("Result")


def chunks_of_days(
    lakehouse: Lakehouse, table: str, column: str, days: tuple[date, date], most_rows: int
) -> Iterator[list[date]]:
    """All days from the first to the last, cut so that no chunk but a single large day holds more than `most_rows`
    rows of the table, whose day is `column`.
    """
    counts = lakehouse.query(
        f"SELECT {column}, count(*) AS rows FROM {table} WHERE {column} BETWEEN ? AND ? GROUP BY ALL", days
    )
    rows_of = dict(counts.iter_rows())
    chunk: list[date] = []
    rows = 0
    for day in pl.date_range(*days, eager=True):
        if chunk and rows + rows_of.get(day, 0) > most_rows:
            yield chunk
            chunk, rows = [], 0
        chunk.append(day)
        rows += rows_of.get(day, 0)
    yield chunk


def worked_ahead(work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """The results of `work` in the order of the items, up to `ahead` of them worked on in threads beforehand.

    Raises what `work` raises, at the place of its item.
    """
    with ThreadPoolExecutor(ahead) as threads:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
