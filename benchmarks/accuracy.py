"""How accurate are the platform's forecasts on M5, beside the forecasts that a data scientist would try first?

    python benchmarks/accuracy.py --m5 FOLDER
    python benchmarks/accuracy.py --m5 FOLDER --stores TX_1,WI_1 --windows 2 --models lightgbm,seasonal_naive

Forecasts 28 days from several origins (rolling, the last window ending on the last known day), with the platform's own
panel, features and models, and with AutoETS (statsforecast) and LightGBM by mlforecast on the same series and days.
WRMSSE over the levels of the hierarchy, mean and spread over the windows; every model is trained on what was known at
the origin. Forecasts are kept in the work folder by model, stores and window, and only missing ones are made: delete a
file to make it anew. FOLDER holds sales_daily, sell_prices and calendar as Parquet, as `load m5` takes them.

The peers need `pip install statsforecast mlforecast`; where these cannot live beside the platform, name the Python of
another environment with --peers-python.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

HORIZON = 28
PEERS = ("auto_ets", "mlforecast", "mlforecast_tweedie")
SERIES = ["store_id", "item_id"]
SAME_SEASON = 364


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--m5", type=Path, required=True, help="folder with the Parquet files of M5")
    arguments.add_argument("--work", type=Path, default=Path(".benchmarks"), help="where panels and forecasts are kept")
    arguments.add_argument("--stores", default="", help="stores to use, comma separated; all by default")
    arguments.add_argument("--windows", type=int, default=5)
    arguments.add_argument("--models", default="lightgbm,seasonal_naive,auto_ets,mlforecast")
    arguments.add_argument("--set", action="append", default=[], help="forecast setting, as trees=300")
    arguments.add_argument("--label", default="", help="name for the forecasts of changed settings")
    arguments.add_argument("--peers-python", default=sys.executable)
    options = arguments.parse_args()
    stores = tuple(name for name in options.stores.split(",") if name)
    folder = options.work / ("-".join(stores) or "all")
    folder.mkdir(parents=True, exist_ok=True)
    panel, history = panel_and_history(options.m5, folder, stores)
    last: date = panel.filter(pl.col("units").is_not_null()).select(pl.col("date").max()).item()
    origins = [last - timedelta(days=HORIZON * step) for step in range(options.windows, 0, -1)]
    names = []
    for model in options.models.split(","):
        label = model + (f"-{options.label}" if options.label and model not in (*PEERS, "seasonal_naive") else "")
        names.append(label)
        for origin in origins:
            target = folder / f"{label}-{origin}.parquet"
            if target.exists():
                continue
            started = time.perf_counter()
            if model in PEERS:
                run_peer(options.peers_python, model, folder, origin, target)
            else:
                forecast = own_forecast(panel, history, model, origin, dict(s.split("=", 1) for s in options.set))
                forecast.write_parquet(target)
            seconds = time.perf_counter() - started
            print(f"{label} from {origin}: {seconds:.0f} s", flush=True)
    report(panel, folder, names, origins)


def panel_and_history(m5: Path, folder: Path, stores: tuple[str, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The demand panel and its history as the platform makes them of the clean tables of M5."""
    from retail_platform.features.history import build_history

    kept = folder / "panel.parquet"
    if not kept.exists():
        m5_panel(m5, stores).write_parquet(kept)
    panel = pl.read_parquet(kept)
    return panel, build_history(panel)


def m5_panel(m5: Path, stores: tuple[str, ...] = ()) -> pl.DataFrame:
    """features.demand of M5, without the way through the lake."""
    from retail_platform.features.demand import build_demand_panel
    from retail_platform.settings import ForecastSettings
    from retail_platform.sources import m5 as source

    calendar = source._calendar(m5, "parquet")
    chosen = pl.col("store_id").is_in(stores) if stores else pl.lit(value=True)
    sales = pl.scan_parquet(m5 / "sales_daily.parquet").filter(chosen)
    series = sales.select(source.SERIES).unique().sort(source.SERIES).collect()
    lines = sales.filter(pl.col("sales") > 0).select(
        "store_id",
        "item_id",
        business_date="date",
        quantity=pl.col("sales").cast(pl.Float64),
        sales_amount=pl.lit(None, pl.Float64),
    )
    prices = source._prices(pl.scan_parquet(m5 / "sell_prices.parquet").filter(chosen), calendar)
    events = source._calendar_events(calendar, series).with_columns(pl.col("region").fill_null("*"))
    return build_demand_panel(
        lines.collect(),
        source._items(series),
        source._stores(series).with_columns(closed_on=pl.lit(None, pl.Date)),
        last_date=sales.select(pl.col("date").max()).collect().item(),
        settings=ForecastSettings(),
        prices=prices,
        calendar=events,
    ).frame


def own_forecast(
    panel: pl.DataFrame, history: pl.DataFrame, model: str, origin: date, changes: dict[str, str]
) -> pl.DataFrame:
    from retail_platform.forecasting.backtest import nodes_of_series, totals_of
    from retail_platform.forecasting.models import MODELS
    from retail_platform.settings import ForecastSettings

    settings = ForecastSettings.model_validate({name: _value(text) for name, text in changes.items()})
    fitted = MODELS[model](panel, history, origin, settings, lambda line: print(f"  {line}", flush=True))
    forecast = fitted.predict_mean(panel, history, origin).join(nodes_of_series(panel), on=SERIES, how="left")
    totals = totals_of((model,), panel, origin, settings)
    aligned = totals.align(forecast, panel, origin) if totals else forecast
    return aligned.select(*SERIES, "date", "mean")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def run_peer(python: str, model: str, folder: Path, origin: date, target: Path) -> None:
    script = Path(__file__).with_name("accuracy_peers.py")
    subprocess.run([python, script, model, folder / "panel.parquet", str(origin), target], check=True)


def scored(panel: pl.DataFrame, folder: Path, names: list[str], origins: list[date]) -> Iterator[pl.DataFrame]:
    """The measures of every model and window: model, cutoff, level, value."""
    from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
    from retail_platform.forecasting.metrics import wrmsse

    truth = panel.select(*SERIES, "date", pl.col("units").cast(pl.Float64))
    for origin in origins:
        hierarchy = Hierarchy.of(panel.filter(pl.col("date") == origin))
        scales = node_scales(panel, hierarchy, origin)
        for name in names:
            forecast = pl.read_parquet(folder / f"{name}-{origin}.parquet").with_columns(
                pl.col("mean").cast(pl.Float64)
            )
            both = forecast.join(truth, on=[*SERIES, "date"])
            nodes = hierarchy.sums(both, ["mean", "units"]).join(scales, on=["level", "node"])
            levels = wrmsse(nodes, ["level"])
            bias = both.select(pl.lit("bias").alias("level"), value=pl.col("mean").sum() / pl.col("units").sum() - 1)
            mean = levels.select(pl.lit("mean").alias("level"), pl.col("value").mean())
            yield pl.concat([levels, mean, bias]).with_columns(model=pl.lit(name), cutoff=pl.lit(origin))


def report(panel: pl.DataFrame, folder: Path, names: list[str], origins: list[date]) -> None:
    from retail_platform.forecasting.hierarchy import LEVELS

    values = pl.concat(scored(panel, folder, names, origins))
    order = [*LEVELS, "mean", "bias"]
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=180, float_precision=4, tbl_hide_dataframe_shape=True):
        means = values.pivot("model", index="level", values="value", aggregate_function="mean")
        print(means.sort(pl.col("level").cast(pl.Enum(order))))
        print(values.filter(pl.col("level") == "mean").pivot("model", index="cutoff", values="value").sort("cutoff"))
    overall = values.filter(pl.col("level") == "mean").pivot("model", index="cutoff", values="value")
    for name in names[1:]:
        gain = 1 - overall[names[0]] / overall[name]
        deviation = gain.std() if gain.len() > 1 else float("nan")
        print(f"{names[0]} below {name}: {gain.mean():.1%}, standard deviation over the windows {deviation:.1%}")


if __name__ == "__main__":
    main()
