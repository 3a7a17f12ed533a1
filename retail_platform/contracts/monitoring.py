"""What the tables of the schema `monitoring` promise: findings about data and models, one figure a row."""

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import column, table


@table(
    "monitoring.data_drift",
    grain=("run_id", "table_name", "column_name", "metric"),
    owner="team:data-science",
    retention_days=1827,
    replaced_by=None,
    tier="gold",
)
class DataDrift(pa.DataFrameModel):
    """How far the current window of a column lies from its reference window, as Evidently measures it."""

    run_id: pl.String = column("Run that measured it")
    table_name: pl.String = column("Table measured")
    column_name: pl.String = column("Column measured, or a quantity derived from one; '*' for the table as a whole")
    metric: pl.String = column("Distance, or share_of_drifted_columns for the whole table")
    value: pl.Float64 = column("Value; empty where the column could not be measured", nullable=True)
    threshold: pl.Float64 = column("Value from which on the column has drifted", nullable=True)
    drifted: pl.Boolean = column("Value reaches the threshold")
    reference_start: pl.Date = column("First day of the reference window")
    reference_end: pl.Date = column("Last day of the reference window")
    current_start: pl.Date = column("First day of the current window")
    current_end: pl.Date = column("Last day of the current window")
    note: pl.String = column(
        "Why a column was not measured or not counted; for the whole table, how many series were compared",
        nullable=True,
    )
    measured_at: pl.Datetime("us") = column("When it was measured (UTC)")  # type: ignore[valid-type]


@table(
    "monitoring.alerts",
    grain=("alert_id",),
    owner="team:data-science",
    retention_days=1827,
    replaced_by=None,
    tier="gold",
)
class Alerts(pa.DataFrameModel):
    """What somebody should look at, with the remedy."""

    alert_id: pl.String = column("Alert")
    raised_at: pl.Datetime("us") = column("When it was raised (UTC)")  # type: ignore[valid-type]
    severity: pl.String = column("How urgent it is", isin=["info", "warning", "critical"])
    subject: pl.String = column("Table, model or feed concerned")
    message: pl.String = column("What happened and what to do")
    run_id: pl.String = column("Run that raised it")
