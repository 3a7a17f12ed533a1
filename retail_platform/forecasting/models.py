"""Models of expected demand: what each learns up to a cutoff and what it expects after an origin.

Here: the mean of each series and day, by LightGBM, by the two simple rules that it has to beat, and by statistical
methods to compare it with. Not here: those methods themselves (`forecasting/statistical.py`), the spread around the
mean (`forecasting/quantiles.py`) and which model is published (`forecasting/training.py`).
Models turn into text files and back; reading and writing them is the caller's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.contracts.forecast import NAIVE
from retail_platform.features.dense import SERIES
from retail_platform.features.history import observed_units
from retail_platform.forecasting.statistical import (
    LONGEST_DAYS,
    SHORTEST_DAYS,
    STATISTICAL,
    forecast_series,
    require_library,
)
from retail_platform.forecasting.training_set import (
    CATEGORIES,
    FEATURES,
    Floats,
    HorizonBlock,
    Known,
    forecast_rows,
    horizon_blocks,
    learn_categories,
    level_of,
    matrix,
    training_rows,
)
from retail_platform.settings import ForecastSettings

Progress = Callable[[str], None]
"""Receives one short line at each step that takes time."""

LARGEST_MEAN = 1e9
"""Bound of a day's expected units, far above any real one: trees with a log link can overflow on absurd input."""
TOLD_PER_TRAINING = 10


class NothingToLearn(Exception):
    """There are no rows to train on; the message says why and what to do."""


class MeanModel(Protocol):
    """A model of expected demand, trained up to some cutoff."""

    @property
    def name(self) -> str: ...

    def predict_mean(self, demand: pl.DataFrame, history: pl.DataFrame, origin: date) -> pl.DataFrame:
        """Expected units of the days after `origin` up to the horizon, for every series that existed at `origin`.

        Returns store_id, item_id, date, horizon, listed, mean; sorted, finite, not negative. Days on which the item
        is known not to be listed have a mean of 0. Reads nothing that became known after `origin`.
        """
        ...

    def to_files(self) -> dict[str, str]:
        """Everything that `from_files` needs, as text by file name."""
        ...


Fit = Callable[[pl.DataFrame, pl.DataFrame, date, ForecastSettings, Progress], MeanModel]
"""Trains on demand and history up to the cutoff; learns nothing that became known after it."""


Doubles = npt.NDArray[np.float64]


def silent(_: str) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True)
class Objective:
    """What an ensemble minimises, and how its raw score, the level and the mean hang together.

    `label` turns units into what is learned, `start` a level into the raw score that training begins with, and `mean`
    a departure and a level into expected units.
    """

    parameters: Callable[[ForecastSettings], dict[str, Any]]
    label: Callable[[Doubles], Doubles]
    start: Callable[[Doubles], Doubles]
    mean: Callable[[Doubles, Doubles], Doubles]


def _same(values: Doubles) -> Doubles:
    return values


def _ratio_to_level(departure: Doubles, level: Doubles) -> Doubles:
    mean: Doubles = np.exp(np.minimum(departure + np.log(level), np.log(LARGEST_MEAN)))
    return mean


def _difference_to_level(departure: Doubles, level: Doubles) -> Doubles:
    return departure + level


def _median_as_mean(departure: Doubles, level: Doubles) -> Doubles:
    mean: Doubles = np.expm1(np.minimum(departure + np.log1p(level), np.log(LARGEST_MEAN)))
    return mean


CHALLENGER = "lightgbm"
"""The model that learns: it is put before the gate, and published where it passes."""

DEFAULT_OBJECTIVE: Final = "tweedie"
"""What is minimised where the settings leave it open and nothing has been tried."""

OBJECTIVES: dict[str, Objective] = {
    DEFAULT_OBJECTIVE: Objective(
        lambda settings: {"objective": "tweedie", "tweedie_variance_power": settings.tweedie_variance_power},
        _same,
        np.log,
        _ratio_to_level,
    ),
    "poisson": Objective(lambda _: {"objective": "poisson"}, _same, np.log, _ratio_to_level),
    "l2": Objective(lambda _: {"objective": "regression"}, _same, _same, _difference_to_level),
    "log_l1": Objective(lambda _: {"objective": "regression_l1"}, np.log1p, np.log1p, _median_as_mean),
}
"""Objectives by their name in the settings. `log_l1` expects the median, which suits WAPE where sales are many and
errors wild; the others the mean."""


@dataclass(frozen=True)
class SeasonalNaive:
    """Every day sells what the last known day of its weekday sold."""

    horizon_days: int
    name: str = NAIVE

    def predict_mean(self, demand: pl.DataFrame, history: pl.DataFrame, origin: date) -> pl.DataFrame:
        """See `MeanModel`. Days out of stock or not listed are passed over; a weekday that was never available takes
        the mean of the last 28 days, and without one 0.
        """
        weekday = pl.col("date").dt.weekday()
        last = (
            demand.lazy()
            .select(*SERIES, "date", weekday=weekday, last=observed_units())
            .filter((pl.col("date") <= origin) & pl.col("last").is_not_null())
            .group_by(*SERIES, "weekday")
            .agg(pl.col("last").sort_by("date").last())
        )
        targets = (
            _days_ahead(demand, origin, self.horizon_days)
            .with_columns(weekday=weekday)
            .join(last, on=[*SERIES, "weekday"], how="left")
            .join(_recent_mean(history, origin), on=SERIES, how="left")
        )
        return _forecast(targets.with_columns(mean=pl.coalesce("last", "mean_28")), origin)

    def to_files(self) -> dict[str, str]:
        return {"model.json": json.dumps({"model": self.name, "horizon_days": self.horizon_days})}


@dataclass(frozen=True)
class MovingAverage:
    """Every day sells the mean of the last 28 known days."""

    horizon_days: int
    name: str = "moving_average"

    def predict_mean(self, demand: pl.DataFrame, history: pl.DataFrame, origin: date) -> pl.DataFrame:
        """See `MeanModel`. A series that was not available on any of the 28 days gets 0."""
        targets = _days_ahead(demand, origin, self.horizon_days).join(
            _recent_mean(history, origin), on=SERIES, how="left"
        )
        return _forecast(targets.with_columns(mean="mean_28"), origin)

    def to_files(self) -> dict[str, str]:
        return {"model.json": json.dumps({"model": self.name, "horizon_days": self.horizon_days})}


@dataclass(frozen=True)
class Statistical:
    """Every series goes on by its own level, trend and week, as AutoETS or Theta find them in its last year."""

    name: str
    horizon_days: int
    processes: int

    def predict_mean(self, demand: pl.DataFrame, history: pl.DataFrame, origin: date) -> pl.DataFrame:
        """See `MeanModel`. A day that tells nothing of demand takes the last known day of its weekday, or else the
        next. A series that is too short, or was never available on some weekday, gets the mean of the known days
        of its last 28, and without one 0.
        """
        same_weekday = [*SERIES, pl.col("date").dt.weekday()]
        known = (
            demand.lazy()
            .filter(pl.col("date").is_between(origin - timedelta(days=LONGEST_DAYS - 1), origin))
            .sort(*SERIES, "date")
            .select(
                "date",
                pl.struct(SERIES).rank("dense").alias("series"),
                *SERIES,
                units=observed_units().cast(pl.Float64).forward_fill().backward_fill().over(same_weekday),
            )
            .filter((pl.len() >= SHORTEST_DAYS).over("series") & pl.col("units").is_not_null().all().over("series"))
            .collect()
        )
        targets = _days_ahead(demand, origin, self.horizon_days).join(
            _recent_mean(history, origin), on=SERIES, how="left"
        )
        if known.is_empty():
            return _forecast(targets.with_columns(mean="mean_28"), origin)
        fitted = forecast_series(self.name, known.select("series", "date", "units"), self.horizon_days, self.processes)
        names = known.select("series", *SERIES).unique("series")
        of_series = fitted.join(names, on="series").select(*SERIES, "date", value=pl.col("value").fill_nan(None))
        both = targets.join(of_series.lazy(), on=[*SERIES, "date"], how="left")
        return _forecast(both.with_columns(mean=pl.coalesce("value", "mean_28")), origin)

    def to_files(self) -> dict[str, str]:
        facts = {"model": self.name, "horizon_days": self.horizon_days, "processes": self.processes}
        return {"model.json": json.dumps(facts)}


def fit_statistical(name: str) -> Fit:
    """The fit of a statistical method, which has nothing to learn beyond what it reads when it predicts. Raises
    `MissingExtra` when called where its library is not installed.
    """

    def fit(
        _demand: pl.DataFrame, _history: pl.DataFrame, _cutoff: date, settings: ForecastSettings, _progress: Progress
    ) -> Statistical:
        require_library(name)
        return Statistical(name, settings.horizon_days, settings.threads)

    return fit


@dataclass(frozen=True)
class LightGbm:
    """Gradient-boosted trees, one ensemble per horizon block, over all series together.

    Each ensemble learns how the units of a day depart from the level of the series: the logarithm of their ratio, or
    the difference (`objective`). `boosters` holds the LightGBM text model of each block, so that the object can be
    compared, kept and sent.
    """

    blocks: tuple[HorizonBlock, ...]
    boosters: tuple[str, ...]
    categories: Mapping[str, Sequence[str]]
    features: tuple[str, ...]
    objective: str
    threads: int
    name: str = "lightgbm"

    def predict_mean(self, demand: pl.DataFrame, history: pl.DataFrame, origin: date) -> pl.DataFrame:
        """See `MeanModel`."""
        return self.predict_stages(demand, history, origin, [None])[None]

    def predict_stages(
        self, demand: pl.DataFrame, history: pl.DataFrame, origin: date, counts: Sequence[int | None]
    ) -> dict[int | None, pl.DataFrame]:
        """What `predict_mean` would give with the first so many trees of each block, null for all, by their number."""
        import lightgbm

        known = Known.of(demand, history)
        parts: dict[int | None, list[pl.DataFrame]] = {count: [] for count in counts}
        for block, text in zip(self.blocks, self.boosters, strict=True):
            rows = forecast_rows(known, block, origin=origin)
            if rows.is_empty():
                continue
            booster, numbers, level = lightgbm.Booster(model_str=text), matrix(rows, self.categories), level_of(rows)
            for count in counts:
                departure = booster.predict(numbers, raw_score=True, num_iteration=count, num_threads=self.threads)
                mean = OBJECTIVES[self.objective].mean(np.asarray(departure, np.float64), level)
                parts[count].append(rows.select(*SERIES, "date", "listed", mean=pl.Series(mean)))
        nothing = _days_ahead(demand, origin, 0).with_columns(mean=pl.lit(0.0))
        return {
            count: _forecast(pl.concat(of_blocks).lazy() if of_blocks else nothing, origin)
            for count, of_blocks in parts.items()
        }

    def importance(self) -> pl.DataFrame:
        """Share of the loss that each feature saved, over all blocks: feature, share; the greatest first."""
        import lightgbm

        gains = [lightgbm.Booster(model_str=text).feature_importance("gain") for text in self.boosters]
        table = pl.DataFrame({"feature": self.features, "share": np.sum(gains, axis=0, dtype=np.float64)})
        total = pl.col("share").sum()
        return table.with_columns(pl.when(total > 0).then(pl.col("share") / total).otherwise(0.0)).sort(
            "share", "feature", descending=[True, False]
        )

    def to_files(self) -> dict[str, str]:
        facts = {
            "model": self.name,
            "blocks": [[block.first, block.last] for block in self.blocks],
            "features": self.features,
            "categories": self.categories,
            "objective": self.objective,
            "threads": self.threads,
        }
        texts = {_booster_file(block): text for block, text in zip(self.blocks, self.boosters, strict=True)}
        return {"model.json": json.dumps(facts, indent=1), **texts}


def fit_lightgbm(
    demand: pl.DataFrame, history: pl.DataFrame, cutoff: date, settings: ForecastSettings, progress: Progress = silent
) -> LightGbm:
    """Train one ensemble per horizon block on the targets of the `training_days` up to `cutoff`.

    Blocks are trained side by side, each by its share of the threads. Equal input, settings and LightGBM version give
    equal models, whatever the number of threads. Raises `NothingToLearn` where the panel is shorter than the block's
    lag, or nothing was sold.
    """
    known, blocks = Known.of(demand, history), horizon_blocks(settings)
    seen = demand.lazy().filter(pl.col("date") <= cutoff)
    categories = learn_categories(seen)

    def boost(block: HorizonBlock) -> str:
        rows = training_rows(
            known,
            block,
            cutoff=cutoff,
            days=settings.training_days,
            at_most=settings.training_rows,
            seed=settings.seed,
        )
        if rows.is_empty():
            days = seen.select(pl.col("date").n_unique()).collect().item()
            raise NothingToLearn(
                f"no day up to {cutoff} has a history {block.last} days older; the panel holds "
                f"{days} days to then; load earlier sales or shorten forecast.horizon_days"
            )
        if rows["units"].sum() == 0:
            raise NothingToLearn(f"nothing was sold on the days to learn from up to {cutoff}; load earlier sales")
        name = f"horizons {block.first}-{block.last} up to {cutoff}"
        progress(f"training {name}: {rows.height:,} rows")
        return _boost(rows, categories, cutoff, settings, max(1, settings.threads // workers), _rounds(name, progress))

    workers = min(settings.threads, len(blocks))
    with ThreadPoolExecutor(workers) as pool:
        boosters = tuple(pool.map(boost, blocks))
    return LightGbm(tuple(blocks), boosters, categories, FEATURES, _objective_of(settings), settings.threads)


MODELS: dict[str, Fit] = {
    CHALLENGER: fit_lightgbm,
    NAIVE: lambda _demand, _history, _cutoff, settings, _progress: SeasonalNaive(settings.horizon_days),
    "moving_average": lambda _demand, _history, _cutoff, settings, _progress: MovingAverage(settings.horizon_days),
    **{name: fit_statistical(name) for name in STATISTICAL},
}
"""How each kind of model is trained, by its name. The simple rules have nothing to learn: they read the panel and the
history when they predict."""


def model_from_files(files: Mapping[str, str]) -> MeanModel:
    """The model that `to_files` wrote. Raises `ValueError` for a kind of model that is not known here, or one that was
    trained on other features than this version computes.
    """
    facts = json.loads(files["model.json"])
    match facts["model"]:
        case "seasonal_naive":
            return SeasonalNaive(facts["horizon_days"])
        case "moving_average":
            return MovingAverage(facts["horizon_days"])
        case name if name in STATISTICAL:
            return Statistical(name, facts["horizon_days"], facts["processes"])
        case "lightgbm":
            _same_features(facts["features"])
            blocks = tuple(HorizonBlock(first, last) for first, last in facts["blocks"])
            boosters = tuple(files[_booster_file(block)] for block in blocks)
            return LightGbm(
                blocks,
                boosters,
                facts["categories"],
                tuple(facts["features"]),
                facts["objective"],
                facts["threads"],
            )
        case other:
            raise ValueError(f"model.json names the model {other}; known are {', '.join(MODELS)}")


def _same_features(features: Sequence[str]) -> None:
    gone = [name for name in features if name not in FEATURES]
    new = [name for name in FEATURES if name not in features]
    if gone or new or tuple(features) != FEATURES:
        raise ValueError(
            "the model was trained on other features than this version computes: "
            f"no longer computed: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}; train it again"
        )


def _objective_of(settings: ForecastSettings) -> str:
    return DEFAULT_OBJECTIVE if settings.objective == "auto" else settings.objective


def _booster_file(block: HorizonBlock) -> str:
    return f"horizon-{block.first:03}-{block.last:03}.txt"


def _boost(
    rows: pl.DataFrame,
    categories: Mapping[str, Sequence[str]],
    cutoff: date,
    settings: ForecastSettings,
    threads: int,
    report: Callable[[Any], None],
) -> str:
    import lightgbm

    objective = OBJECTIVES[_objective_of(settings)]
    parameters = {
        **objective.parameters(settings),
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        # A leaf must hold enough days to average their noise; a small panel could not grow a tree at that size.
        "min_data_in_leaf": max(5, min(100, rows.height // (4 * settings.leaves))),
        # Many statistics say nearly the same: with few of them per tree the trees differ, and grow faster.
        "feature_fraction": 0.3,
        "lambda_l2": 0.1,
        "max_bin": 100,
        "num_threads": threads,
        "seed": settings.seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
    }
    units, level = rows["units"].cast(pl.Float64).to_numpy(), level_of(rows)
    data = lightgbm.Dataset(
        matrix(rows, categories),
        label=objective.label(units),
        init_score=objective.start(level),
        weight=_recency(rows["date"], cutoff, settings.half_life_days),
        feature_name=list(FEATURES),
        categorical_feature=list(CATEGORIES),
        free_raw_data=True,
        params=parameters,
    )
    booster: lightgbm.Booster = lightgbm.train(parameters, data, num_boost_round=settings.trees, callbacks=[report])
    return str(booster.model_to_string())


def _recency(days: pl.Series, cutoff: date, half_life_days: int) -> Floats:
    """Weight of each row: half as much for each half-life that it is older than the cutoff."""
    age = pl.select((pl.lit(cutoff) - days).dt.total_days()).to_series().to_numpy()
    weight: Floats = np.power(0.5, age / half_life_days).astype(np.float32)
    return weight


def _rounds(name: str, progress: Progress) -> Callable[[Any], None]:
    """A callback of LightGBM that tells ten times how many rounds of a training are done."""

    def report(state: Any) -> None:
        done, rounds = state.iteration + 1, state.end_iteration
        if done % max(1, rounds // TOLD_PER_TRAINING) == 0 and done < rounds:
            progress(f"training {name}: {done} of {rounds} rounds")

    return report


def _days_ahead(demand: pl.DataFrame, origin: date, horizon_days: int) -> pl.LazyFrame:
    existing = demand.lazy().filter(pl.col("date") == origin).select(SERIES)
    ahead = pl.col("date").is_between(origin, origin + timedelta(days=horizon_days), closed="right")
    return demand.lazy().filter(ahead).select(*SERIES, "date", "listed").join(existing, on=SERIES)


def _recent_mean(history: pl.DataFrame, origin: date) -> pl.LazyFrame:
    return history.lazy().filter(pl.col("as_of_date") == origin).select(*SERIES, "mean_28")


def _forecast(targets: pl.LazyFrame, origin: date) -> pl.DataFrame:
    mean = pl.col("mean").cast(pl.Float64).fill_null(0).clip(0, LARGEST_MEAN)
    return (
        targets.select(
            *SERIES,
            "date",
            horizon=(pl.col("date") - origin).dt.total_days().cast(pl.Int16),
            listed="listed",
            mean=pl.when("listed").then(mean).otherwise(0.0),
        )
        .sort(*SERIES, "date")
        .collect()
    )
