"""What watches: drift of the demand panel, measured by Evidently."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Lakehouse
from retail_platform.monitoring.drift import NOT_COUNTED, drift_rows, drift_samples, drift_windows, has_drifted
from retail_platform.orchestration.automation import refresh_on_new_data
from retail_platform.orchestration.specs import asset_facts
from retail_platform.settings import Settings

REPORT = "data_drift.html"


def monitoring_assets() -> list[dg.AssetsDefinition]:
    @dg.asset(
        **asset_facts("monitoring.data_drift", code_version="1", kinds=("evidently", "duckdb")),
        deps=[["features", "demand"]],
        automation_condition=refresh_on_new_data,
    )
    def data_drift(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[pl.DataFrame]:
        from retail_platform.monitoring.evidently_report import drift_report

        demand = lakehouse.read("features.demand", where="units IS NOT NULL")
        windows = None if demand.is_empty() else drift_windows(*_first_and_last(demand), settings.drift)
        if windows is None:
            return dg.MaterializeResult(
                value=TABLES["monitoring.data_drift"].empty(),
                metadata={"missing": "the panel is too short to compare two windows"},
            )
        samples = drift_samples(demand, windows, settings.drift)
        distances, page = drift_report(
            samples.reference,
            samples.current,
            numbers=samples.numbers,
            categories=samples.categories,
            threshold=settings.drift.distance_threshold,
            share_of_columns=settings.drift.share_of_columns,
            not_counted=NOT_COUNTED,
        )
        now = datetime.now(UTC).replace(tzinfo=None)
        rows = drift_rows(samples, distances, windows, settings.drift, run_id=context.run.run_id, measured_at=now)
        settings.reports.mkdir(parents=True, exist_ok=True)
        report = settings.reports / REPORT
        report.write_text(page, encoding="utf-8")
        facts: dict[str, Any] = {
            "report": dg.MetadataValue.path(report),
            "drifted": has_drifted(rows),
            "drifted_columns": rows.filter(pl.col("drifted"))["column_name"].to_list(),
            "compared": f"{windows.current_start}...{windows.current_end} with "
            f"{windows.reference_start}...{windows.reference_end}",
        }
        return dg.MaterializeResult(value=rows, metadata=facts)

    return [data_drift]


def _first_and_last(demand: pl.DataFrame) -> tuple[Any, Any]:
    return demand["date"].min(), demand["date"].max()
