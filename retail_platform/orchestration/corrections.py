"""Business days that were cleaned by another rule of corrections than the settings have now.

Here: finding them, so that a feed that is declared complete per store and day, or is so no longer, gets its days
cleaned again. Not here: the rule itself (`cleaning/store_days.py`).
"""

from datetime import date

import polars as pl

from retail_platform.cleaning.store_days import HELD_BACK
from retail_platform.cleaning.text import trimmed
from retail_platform.contracts import Feed
from retail_platform.lakehouse import Lakehouse

_SEVERAL_FILES = """
    SELECT day FROM (
        SELECT unnest(generate_series(first_date, last_date, INTERVAL 1 DAY))::DATE AS day
        FROM raw.ingested_files WHERE feed = ? AND rows > 0
    ) GROUP BY day HAVING count(*) > 1
"""


def days_of_another_rule(lakehouse: Lakehouse, feed: Feed, *, set_aside: bool) -> set[date]:
    """Days whose clean rows are not what the feed's `replaces` makes of them.

    Under `store_day` that shows in a store's day that comes from several files, or for which a row of a file before the
    one that counts is still rejected; under `row` in rows that were withdrawn or held back for the sake of whole days,
    which are looked for only where any row of the feed was rejected or is a duplicate (`set_aside`).
    """
    if lakehouse.settings.feed(feed.name).replaces == "row":
        if not set_aside:
            return set()
        days = lakehouse.query(
            "SELECT partition_date FROM quarantine.duplicate_rows WHERE feed = $1 AND kind = 'withdrawn' "
            "UNION SELECT partition_date FROM quarantine.rejected_rows WHERE feed = $1 AND list_contains(reasons, $2)",
            [feed.name, HELD_BACK],
        )
        return set(days.to_series())
    # The ledger is small, and most days have one file.
    shared = lakehouse.query(_SEVERAL_FILES, [feed.name])["day"].sort().to_list()
    if not shared:
        return set()
    counting = lakehouse.query(
        f"SELECT {feed.date_column} AS day, store_id, min(source_file_id) AS file_id, max(source_file_id) AS last_file "
        f"FROM {feed.clean_table} WHERE day BETWEEN ? AND ? AND day IN (SELECT unnest(?)) GROUP BY ALL",
        [shared[0], shared[-1], shared],
    )
    mixed = counting.filter(pl.col("file_id") != pl.col("last_file"))
    return {*mixed["day"], *_days_with_broken_rows_of_earlier_files(lakehouse, feed, shared, counting)}


def _days_with_broken_rows_of_earlier_files(
    lakehouse: Lakehouse, feed: Feed, days: list[date], counting: pl.DataFrame
) -> pl.Series:
    """Days with rejected rows that arrived before the file that counts for their store and day (`counting`: day,
    store_id, file_id), and which that file would withdraw. A row whose date cannot be read is of no day and stays
    rejected.
    """
    sources = [feed.date_column, lakehouse.settings.feed(feed.name).business_date_from]
    rejected = lakehouse.query(
        "SELECT DISTINCT partition_date AS day, file_id, row_json FROM quarantine.rejected_rows WHERE feed = ? "
        "AND partition_date BETWEEN ? AND ? AND partition_date IN (SELECT unnest(?)) "
        "AND NOT list_bool_or(list_transform(reasons, reason -> list_contains(?, split_part(reason, ':', 1))))",
        [feed.name, days[0], days[-1], days, [column for column in sources if column]],
    )
    arrival = lakehouse.query(
        "SELECT file_id, row_number() OVER (ORDER BY ingested_at, file_id) AS arrival FROM raw.ingested_files "
        "WHERE feed = ?",
        [feed.name],
    )
    replaced = (
        rejected.with_columns(store_id=trimmed(pl.col("row_json").str.json_path_match("$.store_id")))
        .join(counting, on=["day", "store_id"], suffix="_that_counts")
        .join(arrival, on="file_id")
        .join(arrival, left_on="file_id_that_counts", right_on="file_id", suffix="_that_counts")
        .filter(pl.col("arrival") < pl.col("arrival_that_counts"))
    )
    return replaced["day"]
