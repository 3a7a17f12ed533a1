"""What the tables of the schemas `model` and `forecast` promise.

Here: registry, backtest results, issued forecasts, inventory requirements. Not here: how a model is trained or
a forecast made (`forecasting/`), or an order proposed (`replenishment/`).
"""

from typing import Any

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import RowRule, column, table

NAIVE = "seasonal_naive"
"""The model that every other has to beat, by its name in the tables."""

QUANTILES: dict[str, float] = {
    "q005": 0.005,
    "q025": 0.025,
    "q05": 0.05,
    "q165": 0.165,
    "q25": 0.25,
    "q50": 0.50,
    "q75": 0.75,
    "q835": 0.835,
    "q90": 0.90,
    "q95": 0.95,
    "q975": 0.975,
    "q995": 0.995,
}
"""Published quantiles: the six that planners read and the nine of the M5 uncertainty competition."""

_ORDERED = tuple(
    RowRule(f"{low} <= {high}", pl.col(low) <= pl.col(high), f"quantile {low} must not exceed {high}")
    for low, high in zip(list(QUANTILES)[:-1], list(QUANTILES)[1:], strict=True)
)


def _units(description: str, **facts: Any) -> Any:
    return column(description, unit="units", ge=0, le=1e12, **facts)


def _quantile(name: str) -> Any:
    return _units(f"Demand that is not exceeded with probability {QUANTILES[name]:g}")


class _Series(pa.DataFrameModel):
    store_id: pl.String = column("Store")
    item_id: pl.String = column("Item, or the level of its hierarchy at which demand is forecast")


class _Expected(pa.DataFrameModel):
    date: pl.Date = column("Day that is forecast")
    horizon: pl.Int16 = column("Days from the forecast origin to the day", unit="days", ge=1)
    mean: pl.Float64 = _units("Expected units")
    q005: pl.Float64 = _quantile("q005")
    q025: pl.Float64 = _quantile("q025")
    q05: pl.Float64 = _quantile("q05")
    q165: pl.Float64 = _quantile("q165")
    q25: pl.Float64 = _quantile("q25")
    q50: pl.Float64 = _quantile("q50")
    q75: pl.Float64 = _quantile("q75")
    q835: pl.Float64 = _quantile("q835")
    q90: pl.Float64 = _quantile("q90")
    q95: pl.Float64 = _quantile("q95")
    q975: pl.Float64 = _quantile("q975")
    q995: pl.Float64 = _quantile("q995")


class _Node(pa.DataFrameModel):
    level: pl.String = column(
        "Level of the hierarchy: total, region, store, department, 'store x category' and the like"
    )
    node: pl.String = column("Node of the level: the values that name it, such as 'CA_1 / FOODS_3'")


class _Forecast(_Expected, _Series):
    """What is expected of a series on a day."""


@table(
    "model.registry",
    grain=("model_version", "stage", "changed_at"),
    owner="team:data-science",
    retention_days=None,
    replaced_by=None,
    tier="gold",
)
class Registry(pa.DataFrameModel):
    """Trained model versions. A row is never changed: a new stage of a version is a new row."""

    model_version: pl.String = column("Version: name of the model's folder")
    shard: pl.String = column("Group of stores that the model was trained for")
    stage: pl.String = column("Stage that the version enters", isin=["candidate", "champion", "rejected", "retired"])
    changed_at: pl.Datetime("us") = column("When it entered the stage (UTC)")  # type: ignore[valid-type]
    changed_by: pl.String = column("Run, or entry of governance.audit_log, which knows the person")
    reason: pl.String = column("Why, with the figures behind it")
    trained_until: pl.Date = column("Last day that the training saw")
    folder: pl.String = column("Folder of the version, below the models folder")
    manifest_sha256: pl.String = column("SHA-256 of its manifest", str_matches=r"^[0-9a-f]{64}$")
    lake_snapshot: pl.Int64 = column("Snapshot of the lake that the features were read at")
    wape: pl.Float64 = column("WAPE over the backtest; empty where nothing was sold", unit="share", ge=0, nullable=True)
    naive_wape: pl.Float64 = column("WAPE of seasonal naive over the same folds", unit="share", ge=0, nullable=True)


@table(
    "model.decisions",
    grain=("decision_id", "opponent", "segment", "metric"),
    owner="team:data-science",
    retention_days=None,
    replaced_by=None,
    tier="gold",
)
class Decisions(pa.DataFrameModel):
    """Every decision on which version is in force, by a training run or by a person, with the figures behind it: how
    the version under judgement, the challenger, compares with its opponent on the same days of the same series. What
    followed for each version is in model.registry.
    """

    decision_id: pl.String = column("Decision: the version that a run trained, or the entry of governance.audit_log")
    shard: pl.String = column("Group of stores that it concerns")
    decided_at: pl.Datetime("us") = column("When (UTC)")  # type: ignore[valid-type]
    decided_by: pl.String = column("Run, or entry of governance.audit_log, which knows the person")
    action: pl.String = column(
        "first: no champion to compare with; refresh: a champion of the same recipe, trained anew; challenge: a "
        "champion of another recipe; promote and rollback: by a person",
        isin=["first", "refresh", "challenge", "promote", "rollback"],
    )
    challenger: pl.String = column("Version under judgement")
    opponent: pl.String = column("Version that it is compared with, or seasonal_naive")
    in_force: pl.Boolean = column("The challenger is in force by this decision")
    segment: pl.String = column("Part of the panel: 'all', 'horizon 1-7', 'department DAIRY' and the like")
    metric: pl.String = column("wape, or bias: its size", isin=["wape", "bias"])
    series: pl.Int64 = column("Series compared; empty where a person decided", nullable=True, ge=0)
    cutoffs: pl.Int64 = column("Cutoffs compared; empty where a person decided", nullable=True, ge=0)
    opponent_value: pl.Float64 = column("Metric of the opponent", unit="share", nullable=True, ge=0)
    challenger_value: pl.Float64 = column("Metric of the challenger", unit="share", nullable=True, ge=0)
    improvement: pl.Float64 = column(
        "By how much the challenger's is smaller; below 0 where it is worse", unit="share", nullable=True
    )
    standard_error: pl.Float64 = column(
        "Standard error of the improvement, the larger of that over series and that over cutoffs; empty where there is "
        "one only",
        unit="share",
        nullable=True,
        ge=0,
    )
    guarded: pl.Boolean = column("The segment must not get worse by more than the settings allow")
    holds: pl.Boolean = column("It does not")


@table(
    "model.backtest_forecasts",
    grain=("backtest_id", "model", "cutoff", "store_id", "item_id", "date"),
    owner="team:data-science",
    retention_days=365,
    replaced_by=None,
    tier="gold",
)
class BacktestForecasts(_Forecast):
    """What each model would have forecast at past cutoffs, beside what was sold."""

    backtest_id: pl.String = column("Backtest; the model version of the run that made both")
    shard: pl.String = column("Group of stores")
    model: pl.String = column("Model judged: lightgbm, seasonal_naive, moving_average")
    cutoff: pl.Date = column("Last day that the model had seen")
    uncorrected_mean: pl.Float64 = _units("Expected units before they are aligned to the store's totals")
    dispersion: pl.Float64 = column(
        "Variance of the series' daily units over the 91 days to the cutoff, relative to their mean",
        ge=0,
        nullable=True,
    )
    units: pl.Float64 = column("Units sold on the day", unit="units", ge=0, nullable=True)


@table(
    "model.backtest_metrics",
    grain=("backtest_id", "shard", "model", "cutoff", "segment", "metric"),
    owner="team:data-science",
    retention_days=None,
    replaced_by=None,
    tier="gold",
)
class BacktestMetrics(pa.DataFrameModel):
    """Accuracy of each model at each cutoff of a backtest, in all and by segment."""

    backtest_id: pl.String = column("Backtest; the model version of the run that made both")
    shard: pl.String = column("Group of stores")
    model: pl.String = column("Model judged")
    cutoff: pl.Date = column("Last day that the model had seen")
    segment: pl.String = column(
        "Part of the panel: 'all', 'horizon 1-7', 'department FOODS', 'class AX' (turnover A to C, regularity X to Z); "
        "or a level of the hierarchy: 'level store x category'; 'objective poisson' or 'trees 180' for a trial, which "
        "was to choose how a model learns"
    )
    metric: pl.String = column("wape, bias, rmsse, pinball, coverage_90 ...; wrmsse and wspl for 'all' and the levels")
    value: pl.Float64 = column("Value of the metric", nullable=True)
    computed_at: pl.Datetime("us") = column("When it was computed (UTC)")  # type: ignore[valid-type]


@table(
    "forecast.demand",
    grain=("forecast_origin", "store_id", "item_id", "date"),
    owner="team:demand-planning",
    retention_days=1827,
    replaced_by=("forecast_origin", "shard"),
    rules=_ORDERED,
    tier="gold",
)
class DemandForecast(_Forecast):
    """Issued demand forecasts, one row per series and day of the horizon; earlier origins are kept."""

    forecast_origin: pl.Date = column("Last day whose sales the forecast knows")
    shard: pl.String = column("Group of stores")
    model: pl.String = column("Kind of model that was published: lightgbm, or seasonal_naive where no model beat it")
    model_version: pl.String = column("Version that made it (model.registry); 'seasonal_naive' for the naive one")
    issued_at: pl.Datetime("us") = column("When it was issued (UTC)")  # type: ignore[valid-type]


@table(
    "forecast.nodes",
    grain=("forecast_origin", "shard", "level", "node", "date"),
    owner="team:demand-planning",
    retention_days=1827,
    replaced_by=("forecast_origin", "shard"),
    rules=_ORDERED,
    tier="gold",
)
class NodeForecast(_Expected, _Node):
    """The issued forecasts at every level of the hierarchy above the series, such as a store's categories. Expected
    units are the sums of forecast.demand, so that the levels add up; quantiles are those of the sum, which are no sums.
    """

    forecast_origin: pl.Date = column("Last day whose sales the forecast knows")
    shard: pl.String = column("Group of stores")
    model_version: pl.String = column("Version behind the forecast")
    issued_at: pl.Datetime("us") = column("When it was issued (UTC)")  # type: ignore[valid-type]


@table(
    "forecast.inventory_requirements",
    grain=("forecast_origin", "store_id", "item_id"),
    owner="team:supply-chain",
    retention_days=1827,
    replaced_by=("forecast_origin", "shard"),
    tier="gold",
)
class InventoryRequirements(_Series):
    """What each store must order of each item so that the stock lasts to the next delivery but one at the service
    level asked for."""

    forecast_origin: pl.Date = column("Origin of the forecast behind it")
    shard: pl.String = column("Group of stores")
    protection_days: pl.Int64 = column("Lead time plus review period", unit="days", ge=1)
    lead_time_days: pl.Int64 = column("Days from order to delivery", unit="days", ge=0)
    service_level: pl.Float64 = column("Probability that the stock lasts", unit="share", gt=0, lt=1)
    expected_demand: pl.Float64 = _units("Expected demand over the protection interval")
    order_up_to_level: pl.Float64 = _units("Stock that covers the protection interval at the service level")
    safety_stock: pl.Float64 = column("Order-up-to level less expected demand", unit="units")
    on_hand: pl.Float64 = column("Stock in the store; empty where none is known", unit="units", nullable=True)
    on_order: pl.Float64 = column("Units under way", unit="units", nullable=True)
    case_pack: pl.Int64 = column("Units that one case holds", unit="units", ge=1)
    order_quantity: pl.Float64 = column(
        "Units to order, whole cases; empty where the stock is not known", unit="units", ge=0, nullable=True
    )
    stock_as_of: pl.Date = column("Day of the stock figures", nullable=True)
    stock_is_simulated: pl.Boolean = column("The stock figures come from the simulator")
    model_version: pl.String = column("Version behind the forecast")
    issued_at: pl.Datetime("us") = column("When it was issued (UTC)")  # type: ignore[valid-type]
