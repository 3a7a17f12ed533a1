"""What the tables of the schema `governance` promise: decisions that people made about data."""

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import column, table


@table(
    "governance.audit_log",
    grain=("audit_id",),
    owner="team:data-governance",
    retention_days=None,
    replaced_by=None,
    tier="gold",
)
class AuditLog(pa.DataFrameModel):
    """Decisions of people, with who and why, each written in one transaction with what it changed."""

    audit_id: pl.String = column("Decision")
    decided_at: pl.Datetime("us") = column("When (UTC)")  # type: ignore[valid-type]
    who: pl.String = column("Login name, or the setting `user`", str_matches=r"\S", classification="personal")
    action: pl.String = column("What was done, such as waive or reveal", str_matches=r"^[a-z][a-z-]*$")
    subject: pl.String = column("Table, feed or model that it concerns", str_matches=r"\S")
    reason: pl.String = column("Why, in the words of who decided", nullable=True, str_matches=r"\S")
    details: pl.String = column("What exactly, as a JSON object")
    run_id: pl.String = column("Run that carried it out", nullable=True)


@table(
    "governance.commits",
    grain=("snapshot_id",),
    owner="team:data-governance",
    retention_days=None,
    replaced_by=None,
    tier="gold",
)
class Commits(pa.DataFrameModel):
    """Who wrote what to the lake and from what, kept by maintenance when the snapshot itself expires."""

    snapshot_id: pl.Int64 = column("Snapshot that the commit made", ge=0)
    committed_at: pl.Datetime("us") = column("When (UTC)")  # type: ignore[valid-type]
    run_id: pl.String = column("Run that wrote; empty for what DuckLake did by itself", nullable=True)
    message: pl.String = column("Asset and partition", nullable=True)
    provenance: pl.String = column("Asset, code version, partition and inputs, as a JSON object", nullable=True)
    changes: pl.String = column("What was changed, by number of table, as DuckLake tells it")
