"""What the tables promise that keep the work on rejected rows: what was waived, and which days were not written.

The rows themselves are set aside by cleaning, together with the clean ones (`clean.py`).
"""

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.clean import FILE_ID
from retail_platform.contracts.feeds import FEEDS
from retail_platform.contracts.table import column, table


@table(
    "quarantine.waivers",
    grain=("feed", "file_id", "row_number"),
    owner="team:data-engineering",
    retention_days=None,
    replaced_by=None,
)
class Waivers(pa.DataFrameModel):
    """Rejected rows that somebody accepted as lost: they stay in the quarantine and count as open work no longer."""

    feed: pl.String = column("Feed of the row", isin=list(FEEDS))
    file_id: pl.String = column("Landing file (raw.ingested_files)", str_matches=FILE_ID)
    row_number: pl.Int64 = column("Row in that file", ge=1)
    partition_date: pl.Date = column("Partition of the row when it was waived")
    audit_id: pl.String = column("Entry of governance.audit_log: who decided it, when and why")


@table(
    "quarantine.withheld_days",
    grain=("feed", "partition_date"),
    owner="team:data-engineering",
    retention_days=None,
    replaced_by=("feed", "partition_date"),
)
class WithheldDays(pa.DataFrameModel):
    """Days whose clean rows were not written since too many rows of them would have been rejected; the last good ones
    stay in place until the day is cleaned within its budget."""

    feed: pl.String = column("Feed of the day", isin=list(FEEDS))
    partition_date: pl.Date = column("Day; empty for a feed that is not cut into days", nullable=True)
    arrived: pl.Int64 = column("Rows that had arrived", unit="rows", ge=0)
    rejected: pl.Int64 = column("Rows that would have been rejected and are not waived", unit="rows", ge=1)
    waived: pl.Int64 = column("Waived rows that would have been rejected", unit="rows", ge=0)
    reject_budget: pl.Float64 = column("Share of rejected rows that the settings allowed", unit="share", ge=0, le=1)
    reasons: pl.List(pl.String) = column("The commonest reasons, with an example each")  # type: ignore[valid-type]
    feed_settings: pl.String = column("Digest of the settings of the feed by which the rows were judged")
    lake_snapshot: pl.Int64 = column("Snapshot whose items and stores the rows were judged by", ge=0)
    run_id: pl.String = column("Run that withheld the day")
    withheld_at: pl.Datetime("us") = column("When it was withheld (UTC)")  # type: ignore[valid-type]
