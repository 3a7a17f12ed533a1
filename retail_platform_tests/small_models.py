"""Models on a small panel in a lake of their own: trained, judged and put in force without a run of Dagster."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import Backtest, backtest_tables, run_backtest
from retail_platform.lakehouse import Append, Lakehouse, Provenance, ReplaceTable
from retail_platform.orchestration.assets.model import TrainedVersion, train_version
from retail_platform.settings import ForecastSettings, Settings
from retail_platform_tests.panels import seasonal_panel

STRONG = ForecastSettings(
    horizon_days=7, horizon_blocks=(7,), cutoffs=3, trees=25, leaves=7, learning_rate=0.2, threads=1
)
WEAK = STRONG.model_copy(update={"trees": 25, "leaves": 2})
PANEL = seasonal_panel(series=10, days=130, ahead=7)
HISTORY = build_history(PANEL)
BY = Provenance("test", "test")


@cache
def backtest_of(recipe: ForecastSettings) -> Backtest:
    return run_backtest(PANEL, HISTORY, recipe)


@dataclass
class SmallModels:
    """A lake that holds the panel; every training is preceded by a backtest of its recipe."""

    settings: Settings
    trained: list[str] = field(default_factory=list)

    @property
    def lake(self) -> Lakehouse:
        return Lakehouse(self.settings)

    def prepare(self) -> "SmallModels":
        self.lake.prepare()
        tables = {"features.demand": PANEL, "features.demand_history": HISTORY}
        self.lake.commit([ReplaceTable(TABLES[name], frame) for name, frame in tables.items()], BY)
        return self

    def using(self, recipe: ForecastSettings, **changes: Any) -> "SmallModels":
        """The same lake under other settings."""
        return SmallModels(self.settings.model_copy(update={"forecast": recipe, **changes}), self.trained)

    def train(self, *, poor: bool = False) -> TrainedVersion:
        """A new version of the recipe that the settings tell; a `poor` one does not beat seasonal naive."""
        run_id = f"{len(self.trained):08}"
        now = datetime.now(UTC).replace(tzinfo=None)
        frames = backtest_tables(backtest_of(self.settings.forecast), backtest_id=run_id, shard="all", computed_at=now)
        forecasts, metrics = frames
        if poor:
            worse = pl.when(pl.col("model") == "lightgbm").then(pl.col("value") * 10).otherwise("value")
            metrics = metrics.with_columns(value=worse)
        names = ("model.backtest_forecasts", "model.backtest_metrics")
        self.lake.commit([Append(TABLES[n], frame) for n, frame in zip(names, (forecasts, metrics), strict=True)], BY)
        made = train_version(self.lake, "all", run_id=run_id, progress=lambda _: None)
        assert made is not None
        self.trained.append(made.version)
        return made
