"""What a newcomer wants to know after a run: rows, series, accuracy, orders; and the report that shows them."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.demand import selection_rule
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.assets.features import last_known_day
from retail_platform.orchestration.assets.model import newest_metrics
from retail_platform.orchestration.partitions import shard_names
from retail_platform.orchestration.simulated import notes_on_simulated

REPORT = "forecast.html"
SHOWN_DAYS = 366

_ACCOUNT = """
    SELECT (SELECT count(*) FROM raw.pos_sales) AS arrived,
           (SELECT count(*) FROM clean.sales) AS clean,
           (SELECT count(*) FROM quarantine.rejected_rows WHERE feed = 'pos_sales') AS rejected,
           (SELECT count(*) FROM quarantine.duplicate_rows WHERE feed = 'pos_sales') AS duplicate
"""

_LATEST = """
    SELECT max(forecast_origin) AS origin, any_value(model) AS model, any_value(model_version) AS model_version,
           count(DISTINCT (store_id, item_id)) AS series, count(*) AS rows, sum(mean) AS units
    FROM forecast.demand WHERE forecast_origin = (SELECT max(forecast_origin) FROM forecast.demand)
"""

_ORDERS = """
    SELECT count(*) FILTER (order_quantity > 0) AS orders, coalesce(sum(order_quantity), 0) AS units,
           coalesce(bool_or(stock_is_simulated), false) AS simulated
    FROM forecast.inventory_requirements
    WHERE forecast_origin = (SELECT max(forecast_origin) FROM forecast.inventory_requirements)
"""


def summary(lakehouse: Lakehouse) -> list[tuple[str, str]]:
    """Label and value of each figure, in the order of the data's way through the house."""
    account = lakehouse.query(_ACCOUNT).row(0, named=True)
    latest = lakehouse.query(_LATEST).row(0, named=True)
    orders = lakehouse.query(_ORDERS).row(0, named=True)
    rule = lakehouse.settings.forecast
    node = "item_id" if rule.item_level == "item" else f"coalesce(i.{rule.item_level}, item_id)"
    candidates = lakehouse.query(
        f"SELECT count(DISTINCT (store_id, {node})) FROM clean.sales LEFT JOIN clean.items i USING (item_id)"
    ).item()
    return [
        ("point-of-sale rows in", f"{account['arrived']:,}"),
        ("clean", f"{account['clean']:,}"),
        ("rejected, kept with their reasons", f"{account['rejected']:,}"),
        ("duplicates", f"{account['duplicate']:,}"),
        ("series forecast", f"{latest['series']:,} (store x {rule.item_level})"),
        ("series left out", f"{candidates - latest['series']:,} (by the rule among the notes, or by the settings)"),
        ("forecast origin", str(latest["origin"])),
        ("model published", f"{latest['model']} {latest['model_version']}"),
        *_accuracy(lakehouse),
        ("units forecast", f"{latest['units'] or 0:,.0f}"),
        ("orders proposed", f"{orders['orders']:,} ({orders['units']:,.0f} units{_simulated(orders['simulated'])})"),
    ]


def forecast_report(lakehouse: Lakehouse) -> Path:
    """Write reports/forecast.html from what the lake holds, and return its place."""
    from retail_platform.forecasting.charts import backtest_chart, forecast_chart
    from retail_platform.forecasting.report import Picture, forecast_report_html
    from retail_platform.forecasting.trials import without_trials

    origin = last_known_day(lakehouse)
    metrics = without_trials(_newest_metrics(lakehouse))
    panel = lakehouse.read("features.demand", where="date >= ?", parameters=[origin - timedelta(days=SHOWN_DAYS)])
    forecast = lakehouse.read("forecast.demand", where="forecast_origin = ?", parameters=[origin])
    pictures = [
        Picture(
            forecast_chart(panel, forecast),
            "Forecast of the largest series, after what was sold",
            "Six line charts: units sold per day, then the expected units with their 50 % and 90 % bands",
        )
    ]
    if metrics.height:
        pictures += [
            Picture(
                _past_forecast(lakehouse, panel),
                "Forecast against actual at the last cutoff of the backtest",
                "Six line charts: what LightGBM forecast, with its bands, and what was then sold",
            ),
            Picture(
                backtest_chart(metrics),
                "WAPE of each model at each cutoff",
                "Line chart: one line per model, one point per cutoff; the table above has the means",
            ),
        ]
    page = forecast_report_html(
        f"Demand forecast from {origin}",
        facts=summary(lakehouse),
        metrics=metrics,
        pictures=pictures,
        notes=_notes(lakehouse),
    )
    place = lakehouse.settings.reports / REPORT
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(page, encoding="utf-8")
    return place


def _past_forecast(lakehouse: Lakehouse, panel: pl.DataFrame) -> bytes:
    from retail_platform.forecasting.charts import forecast_chart

    newest = _newest_metrics(lakehouse)
    past = lakehouse.query(
        "SELECT * FROM model.backtest_forecasts "
        "WHERE backtest_id IN (SELECT unnest(?)) AND model = 'lightgbm' AND cutoff = ?",
        [newest["backtest_id"].unique().to_list(), newest["cutoff"].max()],
    )
    return forecast_chart(panel, past)


def _newest_metrics(lakehouse: Lakehouse) -> pl.DataFrame:
    """Metrics of the newest backtest, of every shard where there are several."""
    return pl.concat(newest_metrics(lakehouse, shard) for shard in shard_names(lakehouse.settings))


def _accuracy(lakehouse: Lakehouse) -> list[tuple[str, str]]:
    metrics = _newest_metrics(lakehouse)
    wape = (
        metrics.filter((pl.col("segment") == "all") & (pl.col("metric") == "wape"))
        .group_by("model")
        .agg(pl.col("value").mean())
    )
    values = dict(wape.iter_rows())
    if not {"lightgbm", "seasonal_naive"} <= set(values):
        return [("accuracy", "not measured: the panel is too short for a backtest")]
    own, naive = values["lightgbm"], values["seasonal_naive"]
    return [
        ("WAPE of LightGBM in the backtest", f"{own:.1%}"),
        ("WAPE of seasonal naive", f"{naive:.1%}"),
        ("WAPE of moving average", f"{values.get('moving_average', float('nan')):.1%}"),
        ("better than seasonal naive by", f"{1 - own / naive:.1%}" if naive else "nothing: it makes no error"),
    ]


def _notes(lakehouse: Lakehouse) -> list[str]:
    """What a reader must know to trust the page: what is simulated, and what was left out."""
    notes = notes_on_simulated(lakehouse)
    rule = lakehouse.settings.forecast
    notes.append(
        f"Forecast level: {rule.item_level}; {selection_rule(rule)}. "
        "The materialization of features/demand counts those left out, by reason."
    )
    rejected = lakehouse.query(
        f"SELECT feed, count(*) AS rows FROM {TABLES['quarantine.rejected_rows'].name} GROUP BY ALL ORDER BY ALL"
    )
    return notes + [
        f"{rows:,} rows of {feed} were rejected, with their reasons." for feed, rows in rejected.iter_rows()
    ]


def _simulated(simulated: object) -> str:
    return "; the stock is simulated" if simulated else ""
