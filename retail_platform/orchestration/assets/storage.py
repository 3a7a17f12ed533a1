"""The lake looks after itself: maintenance once a week, and whether the lake is sound afterwards."""

from dataclasses import asdict

import dagster as dg

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.specs import asset_facts

_SHOWN = 50
"""Findings that a check lists; the command `retail-platform lake fsck` lists them all."""


def storage_assets() -> list[dg.AssetsDefinition]:
    @dg.asset(**asset_facts("storage.maintenance", code_version="1", kinds=("duckdb",)))
    def maintenance(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]
    ) -> dg.MaterializeResult[None]:
        from retail_platform.lakehouse.maintenance import maintain

        report = maintain(lakehouse, run_id=context.run.run_id)
        figures = {name: value for name, value in asdict(report).items() if isinstance(value, int)}
        return dg.MaterializeResult(metadata={"dagster/row_count": 1, **figures})

    return [maintenance]


@dg.asset_check(
    asset=["storage", "maintenance"],
    description="Catalog, files, ledger and models agree, as `retail-platform lake fsck` sees it.",
)
def lake_is_sound(lakehouse: dg.ResourceParam[Lakehouse]) -> dg.AssetCheckResult:
    from retail_platform.lakehouse.fsck import fsck

    findings = fsck(lakehouse)
    listed = "\n".join(f"- {finding.kind}, {finding.subject}: {finding.message}" for finding in findings[:_SHOWN])
    return dg.AssetCheckResult(
        passed=not findings, metadata={"findings": len(findings), "list": dg.MetadataValue.md(listed)}
    )


weekly_maintenance = dg.ScheduleDefinition(
    "weekly_maintenance",
    target=dg.AssetSelection.assets(["storage", "maintenance"]),
    cron_schedule="0 3 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Maintains the lake in the night to Sunday.",
)
