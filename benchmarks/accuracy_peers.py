"""The peers of `benchmarks/accuracy.py`: forecasts of one window by statsforecast and by mlforecast.

    python benchmarks/accuracy_peers.py MODEL PANEL ORIGIN TARGET

Reads the demand panel (a file of features.demand) and imports nothing of the platform. Writes store_id, item_id, date,
mean. Days without stock are zeros here, as in the competition.
"""

import sys
from datetime import date, timedelta
from pathlib import Path

import polars as pl

HORIZON = 28
SERIES = ["store_id", "item_id"]
ETS_DAYS = 3 * 365
"""AutoETS sees three years: more of them doubles its time and hardly changes a model of level, trend and week."""
TRAINING_DAYS = 730


def main() -> None:
    model, panel, origin, target = sys.argv[1:]
    make = {"auto_ets": auto_ets, "mlforecast": mlforecast, "mlforecast_tweedie": mlforecast_tweedie}[model]
    forecast = make(pl.read_parquet(panel), date.fromisoformat(origin))
    forecast.with_columns(pl.col("mean").cast(pl.Float64).clip(0)).write_parquet(Path(target))


def auto_ets(panel: pl.DataFrame, origin: date) -> pl.DataFrame:
    """AutoETS with a weekly season, series by series."""
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS

    known = panel.filter(pl.col("date").is_between(origin - timedelta(days=ETS_DAYS - 1), origin))
    long = known.select(unique_id=pl.concat_str(SERIES, separator="|"), ds="date", y=pl.col("units").cast(pl.Float64))
    forecast = StatsForecast(models=[AutoETS(season_length=7)], freq="1d", n_jobs=2).forecast(df=long, h=HORIZON)
    return _named(forecast, "AutoETS")


def mlforecast(panel: pl.DataFrame, origin: date) -> pl.DataFrame:
    return _mlforecast(panel, origin, {"objective": "regression"})


def mlforecast_tweedie(panel: pl.DataFrame, origin: date) -> pl.DataFrame:
    return _mlforecast(panel, origin, {"objective": "tweedie", "tweedie_variance_power": 1.1})


def _mlforecast(panel: pl.DataFrame, origin: date, objective: dict[str, object]) -> pl.DataFrame:
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
