"""Models on a small panel in a lake of their own: trained, judged and put in force without a run of Dagster."""

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import Backtest, backtest_tables, run_backtest
from retail_platform.lakehouse import Append, Lakehouse, Provenance, ReplaceTable
from retail_platform.orchestration.assets.model import TrainedVersion, train_version
from retail_platform.settings import ForecastSettings, LakeSettings, Settings
from retail_platform_tests.panels import seasonal_panel

STRONG = ForecastSettings(
    horizon_days=7,
    horizon_blocks=(7,),
    cutoffs=3,
    objective="tweedie",
    trees=25,
    leaves=7,
    learning_rate=0.2,
    threads=1,
)
WEAK = STRONG.model_copy(update={"trees": 25, "leaves": 2, "totals_share": 0.0})
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

    @cached_property
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


@pytest.fixture(scope="session")
def two_champions(tmp_path_factory: pytest.TempPathFactory) -> SmallModels:
    """A lake in which a second version of one recipe has taken the place of the first. Tests only read it."""
    lake = LakeSettings(memory_limit="1GB")
    models = SmallModels(
        Settings(home=tmp_path_factory.mktemp("models") / "home", forecast=STRONG, lake=lake)
    ).prepare()
    models.train()
    models.train()
    return models


@pytest.fixture
def models(two_champions: SmallModels, tmp_path: Path) -> SmallModels:
    """A copy of it that a test may change."""
    shutil.copytree(two_champions.settings.home, tmp_path / "home")
    return SmallModels(
        two_champions.settings.model_copy(update={"home": tmp_path / "home"}), list(two_champions.trained)
    )
