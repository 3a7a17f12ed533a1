"""The whole code location, built afresh on each call.

Here: the table of contents. Not here: any asset, check or sensor (the modules beside this one), and any work:
nothing is read from the lake and no model library is imported when this runs.
"""

import dagster as dg

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.assets.clean import clean_assets
from retail_platform.orchestration.assets.features import every_store_delivered, feature_assets
from retail_platform.orchestration.assets.forecast import forecast_assets, forecast_checks
from retail_platform.orchestration.assets.model import beats_seasonal_naive, model_assets
from retail_platform.orchestration.assets.monitoring import monitoring_assets
from retail_platform.orchestration.assets.raw import raw_assets
from retail_platform.orchestration.assets.sources import source_specs, written_alongside_specs
from retail_platform.orchestration.assets.storage import lake_is_sound, storage_assets, weekly_maintenance
from retail_platform.orchestration.checks import table_checks
from retail_platform.orchestration.io_manager import LakeIOManager
from retail_platform.orchestration.reject_budget import reject_budget_checks
from retail_platform.orchestration.resources import open_lakehouse
from retail_platform.orchestration.sensors import sensors
from retail_platform.settings import Settings, load_settings


def build_definitions(settings: Settings | None = None, lakehouse: Lakehouse | None = None) -> dg.Definitions:
    """Everything that Dagster is to know. Assets work on `lakehouse`, so that a process that has one already opens no
    other.
    """
    settings = settings or load_settings()
    lakehouse = lakehouse or open_lakehouse(settings)
    return dg.Definitions(
        assets=[
            *source_specs(settings),
            *raw_assets(settings),
            *clean_assets(settings),
            *written_alongside_specs(),
            *feature_assets(settings),
            *model_assets(settings),
            *forecast_assets(settings),
            *monitoring_assets(),
            *storage_assets(),
        ],
        asset_checks=[
            *table_checks(),
            *reject_budget_checks(),
            every_store_delivered,
            beats_seasonal_naive,
            *forecast_checks(),
            lake_is_sound,
        ],
        sensors=sensors(),
        schedules=[weekly_maintenance],
        # Starting a process takes longer than most steps: a run is one process, unless shards are to run side by side.
        executor=dg.in_process_executor if settings.forecast.shards == 1 else dg.multiprocess_executor,
        resources={
            "settings": settings,
            "lakehouse": lakehouse,
            "io_manager": LakeIOManager(lakehouse),
        },
    )
