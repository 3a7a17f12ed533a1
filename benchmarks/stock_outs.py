"""Do days on which an item ran out pull the forecast of demand down, and how much less where they are handled?

    python benchmarks/stock_outs.py --data daily_4000.parquet

FreshRetailNet-50K (CC-BY-4.0): sales of fresh products by store and day with the hours without stock, 90 days. What a
day would have sold is known only where nothing ran out. So of such days some are censored here by chance: they lose
the share of their sales that so many hours of 16 make, with hours drawn from those of the days that really ran out.
Then the platform's model forecasts the last two weeks, once told which days ran out and once believing every sale to be
the demand; the bias is that of the forecast on the censored days of these weeks, whose demand is known. Several draws.
"""

import argparse
import statistics
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

SERIES = ["store_id", "item_id"]
HORIZON = 14
OPEN_HOURS = 16
CENSORED_SHARE = 0.3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--draws", type=int, default=3)
    arguments.add_argument("--trees", type=int, default=200)
    options = arguments.parse_args()
    sold = read(options.data)
    biases: dict[str, list[float]] = {"sales": [], "not handled": [], "handled": []}
    for draw in range(options.draws):
        days = censor(sold, draw)
        origin: date = days.select(pl.col("date").max()).item() - timedelta(days=HORIZON)
        judged = days.filter((pl.col("date") > origin) & pl.col("censored"))
        biases["sales"].append(judged.select(pl.col("units").sum() / pl.col("demand").sum()).item() - 1)
        for name, left in (("not handled", pl.lit(value=True)), ("handled", pl.col("hours_out") == 0)):
            forecast = expected(panel_of(days, left), origin, options.trees)
            both = judged.join(forecast, on=[*SERIES, "date"])
            assert both.height == judged.height  # noqa: S101
            biases[name].append(both.select(pl.col("mean").sum() / pl.col("demand").sum()).item() - 1)
        print(f"draw {draw}: " + ", ".join(f"{name} {values[-1]:+.1%}" for name, values in biases.items()), flush=True)
    for name, values in biases.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{name:<12} bias {statistics.mean(values):+.1%}, standard deviation over the draws {spread:.1%}")


def read(file: Path) -> pl.DataFrame:
    """One row per series and day, with the hours out of stock between 6 and 22 o'clock."""
    return (
        pl.scan_parquet(file)
        .select(
            pl.format("S{}", "store_id").alias("store_id"),
            pl.format("P{}", "product_id").alias("item_id"),
            date=pl.col("dt").cast(pl.String).str.to_date(),
            department=pl.format("D{}", "first_category_id"),
            category=pl.format("C{}", "second_category_id"),
            region=pl.format("R{}", "city_id"),
            demand=pl.col("sale_amount").cast(pl.Float64),
            hours_out="stockout_hours_6_22",
            on_promotion="activity_flag",
            promotion_depth=1 - pl.col("discount"),
            holiday="holiday_flag",
            temperature="avg_temperature",
            precipitation="precpt",
        )
        .sort(*SERIES, "date")
        .collect()
    )


def censor(sold: pl.DataFrame, draw: int) -> pl.DataFrame:
    """Beside the `demand` of each day the recorded `units`, `hours_out`, and whether it was `censored` here."""
    random = np.random.default_rng(draw)
    censored = (sold["hours_out"] == 0).to_numpy() & (random.random(sold.height) < CENSORED_SHARE)
    hours = sold["hours_out"].filter(sold["hours_out"] > 0).clip(upper_bound=OPEN_HOURS).to_numpy()
    lost = np.where(censored, random.choice(hours, sold.height), 0)
    return sold.with_columns(
        censored=pl.Series(censored),
        units=pl.col("demand") * (1 - pl.Series(lost) / OPEN_HOURS),
        hours_out=pl.max_horizontal("hours_out", pl.Series(lost)),
    )


def panel_of(days: pl.DataFrame, left: pl.Expr) -> pl.DataFrame:
    """features.demand of these days, where stock was `left` at their close; a series begins with its first sale."""
    from retail_platform.contracts import TABLES
    from retail_platform.features.demand import tells_demand

    schema = TABLES["features.demand"].polars_schema
    facts = {
        "shard": pl.lit("all"),
        "listed": pl.lit(value=True),
        "in_stock": tells_demand(left).over(SERIES, order_by="date"),
        "price": pl.lit(None),
        "price_announced": pl.lit(value=False),
        "event_name": pl.when(pl.col("holiday") > 0).then(pl.lit("holiday")),
        "event_type": pl.when(pl.col("holiday") > 0).then(pl.lit("holiday")),
        "is_payday": pl.lit(value=False),
        "consumer_prices": pl.lit(None),
        "unemployment": pl.lit(None),
        "promotion_depth": pl.col("promotion_depth").clip(0, 1),
    }
    begun = (pl.col("units") > 0).cum_max().over(SERIES)
    panel = days.filter(begun).with_columns(**facts)
    return panel.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def expected(panel: pl.DataFrame, origin: date, trees: int) -> pl.DataFrame:
    """Expected units after the origin: store_id, item_id, date, mean."""
    from retail_platform.features.history import build_history
    from retail_platform.forecasting.models import fit_lightgbm
    from retail_platform.settings import ForecastSettings

    settings = ForecastSettings(horizon_days=HORIZON, horizon_blocks=(7, 14), trees=trees)
    history = build_history(panel)
    model = fit_lightgbm(panel, history, origin, settings)
    return model.predict_mean(panel, history, origin).select(*SERIES, "date", "mean")


if __name__ == "__main__":
    main()
