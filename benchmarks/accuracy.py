"""How accurate are the platform's forecasts on M5, beside the forecasts that a data scientist would try first?

    python benchmarks/accuracy.py --m5 FOLDER
    python benchmarks/accuracy.py --m5 FOLDER --stores TX_1,WI_1 --windows 2 --models lightgbm,seasonal_naive

Forecasts 28 days from several origins (rolling, the last window ending on the last known day), with the platform's own
panel, features and models, and with AutoETS (statsforecast) and LightGBM by mlforecast on the same series and days.
WRMSSE over the levels of the hierarchy, mean and spread over the windows; every model is trained on what was known at
the origin. AutoETS is judged twice: its forecasts of the series added up, and its own forecasts of the upper levels.
WSPL and how often P90 holds, where the platform's quantiles are learned from the errors of the windows before.
Forecasts are kept in the work folder by model, stores and window, and only missing ones are made: delete a file to make
it anew. FOLDER holds sales_daily, sell_prices and calendar as Parquet, as `load m5` takes them.

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
OWN_MODEL, ETS, ETS_OF_NODES = "lightgbm", "auto_ets", "auto_ets_of_nodes"
SERIES = ["store_id", "item_id"]
SUMMED = ("item", "item x region")
"""Levels of thousands of nodes: AutoETS does not fit them, their intervals follow from those of the series."""
EARLIER_WINDOWS = 4
"""Windows before the judged ones, from whose errors the first quantiles are learned."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--m5", type=Path, required=True, help="folder with the Parquet files of M5")
    arguments.add_argument("--work", type=Path, default=Path(".benchmarks"), help="where panels and forecasts are kept")
    arguments.add_argument("--stores", default="", help="stores to use, comma separated; all by default")
    arguments.add_argument("--windows", type=int, default=5)
    arguments.add_argument("--models", default="lightgbm,seasonal_naive,auto_ets,mlforecast")
    arguments.add_argument("--set", action="append", default=[], help="forecast setting, as trees=300")
    arguments.add_argument("--label", default="", help="name for the forecasts of changed settings")
    arguments.add_argument("--spread", action="store_true", help="also WSPL and coverage; needs four windows more")
    arguments.add_argument("--peers-python", default=sys.executable)
    options = arguments.parse_args()
    stores = tuple(name for name in options.stores.split(",") if name)
    folder = options.work / ("-".join(stores) or "all")
    folder.mkdir(parents=True, exist_ok=True)
    panel, history = panel_and_history(options.m5, folder, stores)
    last: date = panel.filter(pl.col("units").is_not_null()).select(pl.col("date").max()).item()
    earlier = EARLIER_WINDOWS if options.spread else 0
    all_origins = [last - timedelta(days=HORIZON * step) for step in range(options.windows + earlier, 0, -1)]
    origins = all_origins[earlier:]
    models = options.models.split(",")
    changes = dict(change.split("=", 1) for change in options.set)
    for model in models:
        for origin in all_origins if model == OWN_MODEL else origins:
            target = folder / f"{labelled(model, options.label)}-{origin}.parquet"
            if target.exists():
                continue
            started = time.perf_counter()
            if model in PEERS:
                run_peer(options.peers_python, model, panel, folder, origin, target)
            else:
                own_forecast(panel, history, model, origin, changes).write_parquet(target)
            print(f"{target.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    names = [labelled(model, options.label) for model in models]
    report(accuracy(panel, folder, names, origins), names, "WRMSSE")
    if options.spread:
        own = labelled(OWN_MODEL, options.label)
        values = pl.concat(spread(panel, history, folder, own, all_origins, earlier, with_peer=ETS in models))
        report([values], [own, *([ETS] if ETS in models else [])], "WSPL")


def labelled(model: str, label: str) -> str:
    """The name under which a model's forecasts are kept."""
    return f"{model}-{label}" if label and model not in (*PEERS, "seasonal_naive") else model


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
    from retail_platform.forecasting.expected import expected_units
    from retail_platform.settings import ForecastSettings

    settings = ForecastSettings.model_validate({name: _value(text) for name, text in changes.items()})
    expected = expected_units(model, panel, history, origin, settings, lambda line: print(f"  {line}", flush=True))
    return expected.select(*SERIES, "date", "mean")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def run_peer(python: str, model: str, panel: pl.DataFrame, folder: Path, origin: date, target: Path) -> None:
    source = folder / "panel.parquet"
    if model == ETS:
        source = folder / "nodes.parquet"
        if not source.exists():
            nodes_for_peers(panel).write_parquet(source)
    script = Path(__file__).with_name("accuracy_peers.py")
    subprocess.run([python, script, model, source, str(origin), target], check=True)


def nodes_for_peers(panel: pl.DataFrame) -> pl.DataFrame:
    """level, node, store_id, item_id (of series), date, units since the first sale of the series and of the levels but
    the summed ones.
    """
    from retail_platform.forecasting.hierarchy import Hierarchy

    hierarchy = Hierarchy.of(panel)
    known = panel.filter(pl.col("units").is_not_null()).with_columns(pl.col("units").cast(pl.Float64))
    nothing = pl.lit(None, pl.String)
    sums = hierarchy.sums(known, ["units"]).filter(~pl.col("level").is_in([*SUMMED, hierarchy.finest or ""]))
    series = known.select(
        level=pl.lit(hierarchy.finest),
        node=pl.concat_str("item_id", "store_id", separator=" / "),
        store_id="store_id",
        item_id="item_id",
        date="date",
        units="units",
    )
    columns = series.columns
    return pl.concat([sums.with_columns(store_id=nothing, item_id=nothing).select(columns), series])


def accuracy(panel: pl.DataFrame, folder: Path, names: list[str], origins: list[date]) -> Iterator[pl.DataFrame]:
    """WRMSSE and bias of every model and window: model, cutoff, level, value."""
    from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
    from retail_platform.forecasting.metrics import wrmsse

    truth = panel.select(*SERIES, "date", pl.col("units").cast(pl.Float64))
    for origin in origins:
        hierarchy = Hierarchy.of(panel.filter(pl.col("date") == origin))
        scales = node_scales(panel, hierarchy, origin)
        sold = hierarchy.sums(truth.filter(_in_window(origin)), ["units"])
        for name in names:
            forecast = pl.read_parquet(folder / f"{name}-{origin}.parquet")
            series = forecast.filter(pl.col("item_id").is_not_null()).with_columns(pl.col("mean").cast(pl.Float64))
            both = series.join(truth, on=[*SERIES, "date"])
            nodes = {name: hierarchy.sums(both, ["mean", "units"])}
            if name == ETS:
                summed = nodes[ETS].filter(pl.col("level").is_in(SUMMED)).drop("units")
                own = pl.concat([forecast.select(summed.columns), summed])
                nodes[ETS_OF_NODES] = own.join(sold, on=["level", "node", "date"])
            bias = both.select(pl.lit("bias").alias("level"), value=pl.col("mean").sum() / pl.col("units").sum() - 1)
            for judged, sums in nodes.items():
                levels = wrmsse(sums.join(scales, on=["level", "node"]), ["level"])
                yield _with_mean(levels, bias).with_columns(model=pl.lit(judged), cutoff=pl.lit(origin))


def spread(
    panel: pl.DataFrame,
    history: pl.DataFrame,
    folder: Path,
    own: str,
    origins: list[date],
    earlier: int,
    *,
    with_peer: bool,
) -> Iterator[pl.DataFrame]:
    """WSPL of the platform's quantiles and of the intervals of AutoETS, and the share of series' days on which no more
    than P90 was sold: model, cutoff, level, value.
    """
    from retail_platform.features.history import observed_units
    from retail_platform.forecasting.backtest import node_errors, node_forecasts
    from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
    from retail_platform.forecasting.metrics import wspl
    from retail_platform.forecasting.quantiles import NodeSpread, QuantileCalibrator, dispersions
    from retail_platform.forecasting.training_set import horizon_blocks
    from retail_platform.settings import ForecastSettings

    blocks, keys = horizon_blocks(ForecastSettings()), ["level", "node", "date"]
    truth = panel.select(*SERIES, "date", "listed", units=observed_units().cast(pl.Float64))
    whole = Hierarchy.of(panel)
    forecasts = [
        pl.read_parquet(folder / f"{own}-{origin}.parquet")
        .join(truth, on=[*SERIES, "date"])
        .join(dispersions(history, origin), on=SERIES, how="left")
        .with_columns(cutoff=pl.lit(origin), horizon=(pl.col("date") - origin).dt.total_days().cast(pl.Int16))
        for origin in origins
    ]
    for number, origin in enumerate(origins[earlier:], start=earlier):
        hierarchy = Hierarchy.of(panel.filter(pl.col("date") == origin))
        scales = node_scales(panel, hierarchy, origin)
        past = pl.concat(forecasts[max(0, number - EARLIER_WINDOWS) : number])
        series = QuantileCalibrator.fit(past, blocks).apply(forecasts[number])
        sold = hierarchy.sums(series.filter(pl.col("units").is_not_null()), ["units"])
        nodes = node_forecasts(series.drop("units"), hierarchy, NodeSpread.fit(node_errors(past, whole), blocks))
        judged = {own: (nodes, series)}
        if with_peer:
            peer = pl.read_parquet(folder / f"{ETS}-{origin}.parquet")
            of_series = peer.filter(pl.col("item_id").is_not_null())
            judged[ETS] = (
                pl.concat([peer.drop(SERIES), _added_up(of_series, hierarchy)], how="diagonal"),
                of_series.join(truth, on=[*SERIES, "date"]),
            )
        for name, (of_nodes, of_series) in judged.items():
            levels = wspl(of_nodes.join(sold, on=keys).join(scales, on=["level", "node"]), ["level"])
            held = of_series.filter(pl.col("units").is_not_null()).select(
                pl.lit("P90 holds").alias("level"), value=(pl.col("units") <= pl.col("q90")).mean()
            )
            yield _with_mean(levels, held).with_columns(model=pl.lit(name), cutoff=pl.lit(origin))


def _added_up(series: pl.DataFrame, hierarchy: Any) -> pl.DataFrame:
    """Intervals of AutoETS for the summed levels: normal, the errors of the series independent of each other."""
    from statistics import NormalDist

    from retail_platform.contracts.forecast import QUANTILES

    normal = NormalDist()
    variance = ((pl.col("q975") - pl.col("mean")) / normal.inv_cdf(0.975)) ** 2
    sums: pl.DataFrame = hierarchy.sums(series.with_columns(variance=variance), ["mean", "variance"])
    names = [name for name in series.columns if name in QUANTILES]
    return sums.filter(pl.col("level").is_in(SUMMED)).select(
        "level",
        "node",
        "date",
        "mean",
        *(
            (pl.col("mean") + normal.inv_cdf(QUANTILES[name]) * pl.col("variance").sqrt()).clip(0).alias(name)
            for name in names
        ),
    )


def _in_window(origin: date) -> pl.Expr:
    return pl.col("date").is_between(origin + timedelta(days=1), origin + timedelta(days=HORIZON))


def _with_mean(levels: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    mean = levels.select(pl.lit("mean").alias("level"), pl.col("value").mean())
    return pl.concat([levels, mean, more])


def report(parts: Iterator[pl.DataFrame] | list[pl.DataFrame], names: list[str], measure: str) -> None:
    from retail_platform.forecasting.hierarchy import LEVELS

    values = pl.concat(parts)
    order = [*LEVELS, "mean", "bias", "P90 holds"]
    print(measure)
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=180, float_precision=4, tbl_hide_dataframe_shape=True):
        means = values.pivot("model", index="level", values="value", aggregate_function="mean")
        print(means.sort(pl.col("level").cast(pl.Enum(order))))
        overall = values.filter(pl.col("level") == "mean").pivot("model", index="cutoff", values="value").sort("cutoff")
        print(overall)
    for name in overall.columns[2:]:
        gain = 1 - overall[names[0]] / overall[name]
        mean, deviation = gain.to_numpy().mean(), gain.std() if gain.len() > 1 else float("nan")
        print(f"{names[0]} below {name}: {mean:.1%}, standard deviation over the windows {deviation:.1%}")


if __name__ == "__main__":
    main()
