"""The peers of `benchmarks/accuracy.py`: forecasts of one window by statsforecast and by mlforecast.

    python benchmarks/accuracy_peers.py MODEL PANEL ORIGIN TARGET

Reads the demand panel (a file of features.demand; for AutoETS one of nodes: level, node, store_id, item_id, date,
units) and imports nothing of the platform. Writes store_id, item_id, date, mean; of AutoETS also level, node and the
quantiles of the M5 competition. Days without stock are zeros here, as in the competition.
"""

import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

HORIZON = 28
SERIES = ["store_id", "item_id"]
ETS_DAYS = 365
"""AutoETS sees a year: more of it multiplies its time and hardly changes a model of level, trend and week."""
QUANTILES = {
    "q005": "AutoETS-lo-99",
    "q025": "AutoETS-lo-95",
    "q165": "AutoETS-lo-67",
    "q25": "AutoETS-lo-50",
    "q50": "AutoETS",
    "q75": "AutoETS-hi-50",
    "q835": "AutoETS-hi-67",
    "q90": "AutoETS-hi-80",
    "q975": "AutoETS-hi-95",
    "q995": "AutoETS-hi-99",
}
TRAINING_DAYS = 730


def main() -> None:
    model, panel, origin, target = sys.argv[1:]
    make = {"auto_ets": auto_ets, "mlforecast": mlforecast, "mlforecast_tweedie": mlforecast_tweedie}[model]
    forecast = make(pl.read_parquet(panel), date.fromisoformat(origin))
    numbers = pl.selectors.float()
    forecast.with_columns(numbers.cast(pl.Float64).clip(0)).write_parquet(Path(target))


def auto_ets(nodes: pl.DataFrame, origin: date) -> pl.DataFrame:
    """AutoETS with a weekly season, each node for itself, with its intervals; the mean for series of a few days, which
    it refuses.
    """
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS, HistoricAverage

    names = ["level", "node", *SERIES]
    known = nodes.filter(pl.col("date").is_between(origin - timedelta(days=ETS_DAYS - 1), origin))
    numbers = known.select(names).unique(maintain_order=True).with_row_index("unique_id")
    long = known.join(numbers, on=names, nulls_equal=True).select(
        "unique_id", ds="date", y=pl.col("units").cast(pl.Float64)
    )
    mean = HistoricAverage(alias="AutoETS")
    forecaster = StatsForecast(models=[AutoETS(season_length=7)], freq="1d", n_jobs=2, fallback_model=mean)
    forecast = forecaster.forecast(df=long, h=HORIZON, level=[50, 67, 80, 95, 99])
    return forecast.join(numbers, on="unique_id").select(
        *names,
        pl.col("ds").cast(pl.Date).alias("date"),
        mean="AutoETS",
        # A series of one day has a mean and no spread.
        **{name: pl.col(column).fill_nan(pl.col("AutoETS")) for name, column in QUANTILES.items()},
    )


def mlforecast(panel: pl.DataFrame, origin: date) -> pl.DataFrame:
    return _mlforecast(panel, origin, {"objective": "regression"})


def mlforecast_tweedie(panel: pl.DataFrame, origin: date) -> pl.DataFrame:
    return _mlforecast(panel, origin, {"objective": "tweedie", "tweedie_variance_power": 1.1})


def _mlforecast(panel: pl.DataFrame, origin: date, objective: dict[str, Any]) -> pl.DataFrame:
    """One LightGBM of 500 trees with 127 leaves for all horizons: lags and rolling statistics not younger than the
    horizon, price, events, pay days and dates, on the last two years.
    """
    import lightgbm
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean, RollingStd

    names = ["department", "category", "region", "event_name", "event_type", *SERIES]
    codes = [pl.col(name).rank("dense").fill_null(0).cast(pl.Int32).alias(f"{name}_code") for name in names]
    price = pl.col("price").fill_null(strategy="backward").over(SERIES)
    frame = panel.select(
        *codes,
        unique_id=pl.concat_str(SERIES, separator="|"),
        ds="date",
        y=pl.col("units").cast(pl.Float32),
        price=price,
        price_to_max=price / price.cum_max().over(SERIES),
        payday=pl.col("is_payday").cast(pl.Int8),
    )
    # Lags and the longest window need so much before the first day that is learned from.
    first = origin - timedelta(days=TRAINING_DAYS + 364)
    known = frame.filter(pl.col("ds").is_between(first, origin))
    ahead = frame.filter(pl.col("ds").is_between(origin + timedelta(days=1), origin + timedelta(days=HORIZON))).drop(
        "y"
    )
    static = [f"{name}_code" for name in ("department", "category", "region", *SERIES)]
    model = lightgbm.LGBMRegressor(
        n_estimators=500,
        num_leaves=127,
        learning_rate=0.05,
        min_child_samples=100,
        colsample_bytree=0.5,
        subsample=0.5,
        subsample_freq=1,
        n_jobs=2,
        verbosity=-1,
        random_state=1,
        **objective,
    )
    forecaster = MLForecast(
        models={"mean": model},
        freq="1d",
        lags=[28, 29, 30, 31, 32, 33, 34, 35, 42, 49, 56],
        lag_transforms={28: [RollingMean(w) for w in (7, 14, 28, 56, 180)] + [RollingStd(w) for w in (7, 28)]},
        date_features=[
            "weekday",
            "month",
            "day",
            "week",
        ],
        num_threads=2,
    )
    features = forecaster.preprocess(known, static_features=static, dropna=True)
    learned = features.filter(pl.col("ds") > origin - timedelta(days=TRAINING_DAYS))
    columns = [name for name in learned.columns if name not in ("unique_id", "ds", "y")]
    categorical = [name for name in columns if name.endswith("_code")]
    model.fit(
        learned.select(columns).to_numpy(),
        learned["y"].to_numpy(),
        feature_name=columns,
        categorical_feature=categorical,
    )
    forecaster.models_ = {"mean": model}
    return _named(forecaster.predict(HORIZON, X_df=ahead), "mean")


def _named(forecast: pl.DataFrame, column: str) -> pl.DataFrame:
    store, item = (pl.col("unique_id").str.split("|").list.get(place).alias(name) for place, name in enumerate(SERIES))
    return forecast.select(store, item, date=pl.col("ds").cast(pl.Date), mean=column)


if __name__ == "__main__":
    main()
