"""Business days that were cleaned by another rule of corrections than the settings have now.

Here: finding them, so that a feed that is declared complete per store and day, or is so no longer, gets its days
cleaned again. Not here: the rule itself (`cleaning/store_days.py`).
"""

from datetime import date

from retail_platform.cleaning.store_days import HELD_BACK
from retail_platform.contracts import Feed
from retail_platform.lakehouse import Lakehouse

_SEVERAL_FILES = """
    SELECT day FROM (
        SELECT unnest(generate_series(first_date, last_date, INTERVAL 1 DAY))::DATE AS day
        FROM raw.ingested_files WHERE feed = ? AND rows > 0
    ) GROUP BY day HAVING count(*) > 1
"""


def days_of_another_rule(lakehouse: Lakehouse, feed: Feed) -> set[date]:
    """Days whose clean rows are not what the feed's `replaces` makes of them.

    Under `store_day` that shows in a store's day that comes from several files; under `row` in rows that were withdrawn
    or held back for the sake of whole days.
    """
    if lakehouse.settings.feed(feed.name).replaces == "row":
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
    days = lakehouse.query(
        f"SELECT DISTINCT {feed.date_column} FROM {feed.clean_table} "
        f"WHERE {feed.date_column} BETWEEN ? AND ? AND {feed.date_column} IN (SELECT unnest(?)) "
        f"GROUP BY {feed.date_column}, store_id HAVING min(source_file_id) <> max(source_file_id)",
        [shared[0], shared[-1], shared],
    )
    return set(days.to_series())
