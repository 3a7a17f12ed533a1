"""What the tables of the schema `storage` promise: how the lake itself is looked after."""

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import column, table


@table(
    "storage.maintenance",
    grain=("run_id",),
    owner="team:data-engineering",
    retention_days=1827,
    replaced_by=None,
    tier="gold",
)
class Maintenance(pa.DataFrameModel):
    """What each maintenance of the lake did."""

    run_id: pl.String = column("Run, or call of the command")
    started_at: pl.Datetime("us") = column("When it began (UTC)")  # type: ignore[valid-type]
    finished_at: pl.Datetime("us") = column("When it had ended (UTC)")  # type: ignore[valid-type]
    snapshots_expired: pl.Int64 = column("Snapshots that can no longer be read", ge=0)
    snapshots_kept: pl.Int64 = column("Snapshots that can still be read", ge=1)
    files_compacted: pl.Int64 = column("Small files, and files with deleted rows, that were written anew", ge=0)
    files_written: pl.Int64 = column("Files that took their place", ge=0)
    files_removed: pl.Int64 = column("Files removed that no snapshot needs any more", ge=0)
    orphans_removed: pl.Int64 = column("Files removed that no snapshot ever named, left by killed writes", ge=0)
    bytes_removed: pl.Int64 = column("Size of the files removed", unit="bytes", ge=0)
    leftovers_removed: pl.Int64 = column("Temporary files removed that killed processes left in the home", ge=0)
