"""The command line `retail-platform`.

Here: words in, words out. Not here: any work of its own; a command calls one room or one run and shows the result.
Heavy libraries are imported inside the commands that need them, so that `--help` answers at once.
"""

import errno
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Grid

from retail_platform.cli_lake import lake_app
from retail_platform.cli_models import models_app
from retail_platform.cli_quarantine import quarantine_app
from retail_platform.terminal import (
    Json,
    current_settings,
    err,
    lakehouse_of,
    out,
    plain,
    prepared_settings,
    print_facts,
    print_frame,
    progress,
    stop,
)

if TYPE_CHECKING:
    import polars as pl

    from retail_platform.lakehouse import Lakehouse
    from retail_platform.orchestration.runner import Step
    from retail_platform.sources.landing import LoadReport

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
load_app = typer.Typer(no_args_is_help=True, help="Turn a known data set into landing files.")
forecast_app = typer.Typer(no_args_is_help=True, help="Published forecasts.")
app.add_typer(load_app, name="load")
app.add_typer(lake_app, name="lake")
app.add_typer(models_app, name="models")
app.add_typer(forecast_app, name="forecast")
app.add_typer(quarantine_app, name="quarantine")

DEMO_SETTINGS = """\
# Written by `retail-platform demo`: how the Complete Journey is forecast. Edit it as you like.
start_date = 2017-01-01
country = "US"

[forecast]
# 2,469 households buy too rarely of one SKU in one store; their categories can be forecast.
item_level = "category"
minimum_selling_days = 90
# Not merchandise: fuel is counted in thousandths of a gallon.
excluded_categories = ["COUPON/MISC ITEMS", "FUEL"]
"""


def main() -> None:
    """Entry point: a user's mistake ends with one clear sentence and exit code 1, without a traceback."""
    try:
        app()
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            stop(f"{error.filename or 'a file'}: {error.strerror}; {_REMEDIES[error.errno]}")
        if not _USER_MISTAKES & {kind.__name__ for kind in type(error).__mro__}:
            raise
        stop(str(error))


_USER_MISTAKES = {
    "BrokenFile",
    "IntakeError",
    "LakeError",
    "LandingError",
    "NotReproducible",
    "PermissionError",
    "QuarantineError",
    "RunFailed",
    "SettingsError",
    "ChampionError",
    "UnknownNameError",
}
"""By name, because importing the rooms that raise them would make every `--help` wait."""

_REMEDIES = {
    errno.EACCES: "mend its rights",
    errno.EPERM: "mend its rights",
    errno.EROFS: "let it be written, or set RETAIL_HOME to a place that can be",
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "raise the system's limit of open files",
}
"""What the machine refuses that its user can mend."""


@app.command()
def demo() -> None:
    """The whole job on real data: load, ingest, clean, train, forecast, propose orders; with a summary at the end.

    Example: retail-platform demo
    """
    from time import monotonic

    from retail_platform.orchestration.runner import bring_up_to_date, prepare_home
    from retail_platform.orchestration.summary import forecast_report, summary

    started = monotonic()
    _write_demo_settings()
    settings = current_settings()
    prepare_home(settings)
    with progress("Writing the Complete Journey as landing files"):
        from retail_platform.sources.complete_journey import load_complete_journey

        report = load_complete_journey(settings.landing)
        loaded = monotonic() - started
    _show_report(report)
    lakehouse = lakehouse_of(settings)
    with progress("Looking for what is new") as say:
        steps = bring_up_to_date(lakehouse, say)
    with progress("Writing the report"):
        page = forecast_report(lakehouse)
    facts = [
        *summary(lakehouse),
        ("seconds to write landing files", f"{loaded:.1f}"),
        *((f"seconds to {name}", f"{seconds:.1f}") for name, seconds in _seconds_by_name(steps).items()),
        ("seconds in all", f"{monotonic() - started:.1f}"),
    ]
    if len(steps) == 1:
        out.print("Nothing was new: every table is up to date.")
    print_facts("Summary", facts)
    out.print(f"Report: {page}", soft_wrap=True)
    out.print("Next: `make ui` shows the asset graph at http://127.0.0.1:3000", highlight=False)


@load_app.command("complete-journey")
def load_complete_journey_command() -> None:
    """Real grocery receipts of 2017 (1,469,307 lines). Stock, weather and economy beside them are simulated.

    Example: retail-platform load complete-journey
    """
    from retail_platform.sources.complete_journey import load_complete_journey

    settings = prepared_settings()
    with progress("Writing the Complete Journey as landing files"):
        report = load_complete_journey(settings.landing)
    _show_report(report)


@load_app.command("m5")
def load_m5_command(
    path: Annotated[Path, typer.Option("--path", help="Folder with M5 as CSV (as published) or Parquet.")],
) -> None:
    """M5 (Walmart): daily item totals, weekly prices, events and SNAP days.

    Example: retail-platform load m5 --path ~/m5
    """
    from retail_platform.sources.m5 import load_m5

    settings = prepared_settings()
    with progress("Writing M5 as landing files"):
        report = load_m5(settings.landing, path)
    _show_report(report)


@app.command()
def simulate(
    stores: Annotated[int, typer.Option(min=1, help="Number of stores.")] = 5,
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 200,
    days: Annotated[int, typer.Option(min=1, help="Number of days.")] = 730,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal files.")] = 20170101,
) -> None:
    """A made-up retailer of any size as landing files; what was really demanded goes to the folder truth/.

    Example: retail-platform simulate --stores 3 --items 50 --days 400 --seed 1
    """
    from retail_platform.sources.simulator import SimulationParameters, write_simulation

    settings = prepared_settings()
    parameters = SimulationParameters(stores=stores, items=items, days=days, seed=seed)
    with progress(f"Simulating {stores} stores, {items} items, {days} days"):
        report = write_simulation(parameters, settings.landing, settings.home / "truth")
    _show_report(report)


@app.command()
def ingest(
    feeds: Annotated[list[str] | None, typer.Argument(help="Feeds to take in; all where none is named.")] = None,
    as_json: Json = False,
) -> None:
    """Take in what lies in the landing zone, and what the sources have. The same content is never taken in twice.

    A file that still grows is left for the next time; every file that was left out is listed with the reason.

    Example: retail-platform ingest pos_sales items
    """
    import polars as pl

    from retail_platform.contracts import FEEDS
    from retail_platform.orchestration.runner import RunFailed, materialize, words_of_intake
    from retail_platform.sources.files import of_no_feed

    unknown = [name for name in feeds or [] if name not in FEEDS]
    if unknown:
        stop(f"unknown feed {', '.join(unknown)}; known are {', '.join(FEEDS)}")
    settings = prepared_settings()
    lakehouse = lakehouse_of(settings)
    lakehouse.prepare()
    noted = ("raw.ingested_files", "raw.files_left_out", "monitoring.alerts")
    before = pl.concat(lakehouse.read(name, columns=["run_id"]) for name in noted)
    began = datetime.now(UTC)
    selection = " or ".join(f'key:"{FEEDS[name].raw_table.replace(".", "/")}"' for name in feeds or FEEDS)
    complaint = ""
    with progress("Taking in landing files", quiet=as_json) as say:
        try:
            materialize(lakehouse, selection, None, None, say)
        except RunFailed as failed:
            # What else was taken in or left out is said all the same.
            complaint = str(failed)
    _warn([*of_no_feed(settings.landing), *words_of_intake(settings, feeds or list(FEEDS), began)])
    if complaint:
        alerts = lakehouse.read("monitoring.alerts", columns=["message", "run_id"])
        _warn(alerts.join(before, on="run_id", how="anti")["message"].to_list())
    new = lakehouse.query(
        """
        SELECT feed, file_name, rows, status, NULL AS reason, run_id FROM raw.ingested_files
        UNION ALL SELECT feed, file_name, NULL, outcome, reason, run_id FROM raw.files_left_out
        ORDER BY ALL
        """
    ).join(before, on="run_id", how="anti")
    print_frame(new.drop("run_id"), as_json=as_json, empty="no new file in the landing zone")
    if complaint:
        stop(complaint)


@app.command()
def run(
    select: Annotated[str | None, typer.Option(help="Assets, in Dagster's selection syntax.")] = None,
    partition: Annotated[str | None, typer.Option(help="A business day, a range DAY..DAY, or a shard.")] = None,
) -> None:
    """Bring everything up to date, or materialize a selection whether it is or not.

    Examples: retail-platform run
              retail-platform run --select 'group:model+'
              retail-platform run --select 'key:"clean/sales"' --partition 2017-03-01..2017-03-31
    """
    from retail_platform.orchestration.runner import bring_up_to_date, materialize
    from retail_platform.orchestration.summary import forecast_report
    from retail_platform.sources.files import of_no_feed

    settings = prepared_settings()
    lakehouse = lakehouse_of(settings)
    if partition and not select:
        stop("--partition says which part of a selection; name the assets too, for example --select 'group:clean'")
    with progress("Looking for what is new") as say:
        if select:
            days, shard = _days_or_shard(partition)
            steps = materialize(lakehouse, select, days, shard, say)
        else:
            _warn(of_no_feed(settings.landing))
            steps = bring_up_to_date(lakehouse, say)
            if len(steps) > 1:
                forecast_report(lakehouse)
    _show_steps(steps)


@app.command()
def backtest(as_json: Json = False) -> None:
    """Forecast from past origins with every model, and show how each did.

    Example: retail-platform backtest
    """
    from retail_platform.orchestration.runner import materialize

    lakehouse = lakehouse_of(prepared_settings())
    with progress("Backtesting", quiet=as_json) as say:
        selection = 'key:"model/backtest_forecasts" or key:"model/backtest_metrics"'
        materialize(lakehouse, selection, None, None, say)
    print_frame(_accuracy(lakehouse), as_json=as_json, empty="the panel is too short for a backtest")


@app.command()
def explore() -> None:
    """One HTML page on the shape of demand: patterns, seasons, effects of price and promotions, stock-outs, movers.

    Example: retail-platform explore
    """
    from retail_platform.orchestration.exploration import explore as write_page

    lakehouse = lakehouse_of(current_settings())
    with progress("Looking at demand"):
        page = write_page(lakehouse)
    out.print(f"Page: {page}", soft_wrap=True)


@forecast_app.command("show")
def forecast_show(
    store: Annotated[str | None, typer.Option(help="Store; the largest series where none is named.")] = None,
    item: Annotated[str | None, typer.Option(help="Item, or node of the item hierarchy.")] = None,
    as_json: Json = False,
) -> None:
    """The latest forecast of a series, day by day.

    Example: retail-platform forecast show --store 367 --item "FLUID MILK PRODUCTS"
    """
    lakehouse = lakehouse_of(current_settings())
    chosen = lakehouse.query(
        """
        SELECT forecast_origin, store_id, item_id FROM forecast.demand
        WHERE forecast_origin = (SELECT max(forecast_origin) FROM forecast.demand)
          AND ($1 IS NULL OR store_id = $1) AND ($2 IS NULL OR item_id = $2)
        GROUP BY ALL ORDER BY sum(mean) DESC LIMIT 1
        """,
        [store, item],
    )
    if chosen.is_empty():
        stop("no forecast of that store and item; `retail-platform sql` can list what there is")
    frame = lakehouse.query(
        "SELECT store_id, item_id, date, horizon, mean, q05, q25, q50, q75, q95, model_version FROM forecast.demand "
        "WHERE forecast_origin = ? AND store_id = ? AND item_id = ? ORDER BY date",
        chosen.row(0),
    )
    print_frame(frame, as_json=as_json)


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT; tables are named as clean.sales.")],
    at: Annotated[str | None, typer.Option(help="Read the lake as of a snapshot, or of a time (UTC).")] = None,
    as_json: Json = False,
) -> None:
    """Ask the lake, as it is or as it was. Reading only.

    Examples: retail-platform sql "SELECT count(*) FROM clean.sales"
              retail-platform sql --at 2017-03-01T12:00 "SELECT count(*) FROM clean.sales"
    """
    print_frame(lakehouse_of(current_settings()).query(statement, at=_at(at)), as_json=as_json, empty="no rows")


@app.command()
def lineage(
    name: Annotated[str, typer.Argument(help="A table, or table.column.")],
    upstream: Annotated[bool, typer.Option("--upstream", help="Only what it derives from.")] = False,
    downstream: Annotated[bool, typer.Option("--downstream", help="Only what derives from it.")] = False,
    as_json: Json = False,
) -> None:
    """What a table or column derives from, and what derives from it.

    Example: retail-platform lineage clean.sales.customer_pseudonym --upstream
    """
    import polars as pl

    from retail_platform.governance import lineage as graph

    both = upstream == downstream
    edges = graph.upstream(name) if upstream or both else []
    edges += graph.downstream(name) if downstream or both else []
    frame = pl.DataFrame([plain(edge) for edge in edges])
    print_frame(frame, as_json=as_json, empty=f"nothing is known to feed {name} or to derive from it")


@app.command()
def doctor() -> None:
    """What is installed, reachable and writable, and what to do about the rest.

    Example: retail-platform doctor
    """
    from retail_platform.doctor import examine

    findings = examine()
    grid = Grid("", "what", "found", "remedy")
    for finding in findings:
        state, remedy = ("ok", "") if finding.fine else ("!!", finding.remedy)
        grid.add_row(state, finding.what, finding.found, remedy)
    out.print(grid)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3000,
) -> None:
    """The Dagster UI with its daemon: asset graph, sensors, automation. Ctrl-C ends both.

    Example: retail-platform ui --port 3000
    """
    from retail_platform.orchestration.server import serve

    settings = prepared_settings()
    lakehouse_of(settings).prepare()
    raise typer.Exit(serve(settings, host, port))


def _write_demo_settings() -> None:
    """The demo forecasts categories; a home without settings of its own is given those, so that the UI agrees."""
    from retail_platform.settings import configuration_file

    place = configuration_file()
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(DEMO_SETTINGS, encoding="utf-8")


def _seconds_by_name(steps: "Sequence[Step]") -> dict[str, float]:
    names = dict.fromkeys(step.name for step in steps)
    return {name: sum(step.seconds for step in steps if step.name == name) for name in names}


def _at(at: str | None) -> int | datetime | None:
    if at is None or at.isdecimal():
        return None if at is None else int(at)
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        stop(f"{at} is neither the number of a snapshot nor a time such as 2017-03-01T12:00")


def _warn(words: Sequence[str]) -> None:
    for sentence in words:
        err.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _days_or_shard(partition: str | None) -> tuple[tuple[date, date] | None, str | None]:
    if partition is None:
        return None, None
    first, _, last = partition.partition("..")
    try:
        days = date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        if "-" in partition and not partition.startswith("shard-"):
            stop(f"{partition} is neither a day (2017-03-01), a range of days (2017-03-01..2017-03-31) nor a shard")
        return None, partition
    if days[0] > days[1]:
        stop(f"{partition}: the first day lies after the last")
    return days, None


def _accuracy(lakehouse: "Lakehouse") -> "pl.DataFrame":
    from retail_platform.features.shards import shard_names

    figures = lakehouse.query(
        """
        SELECT shard, model, metric, avg(value) AS value FROM model.backtest_metrics
        WHERE segment = 'all' AND shard IN (SELECT unnest(?)) AND backtest_id IN (
            SELECT arg_max(backtest_id, computed_at) FROM model.backtest_metrics GROUP BY shard)
        GROUP BY ALL ORDER BY ALL
        """,
        [shard_names(lakehouse.settings.forecast.shards)],
    )
    return figures.pivot("metric", index=["shard", "model"], values="value")


def _show_report(report: "LoadReport") -> None:
    for feed, rows in sorted(report.rows_by_feed().items()):
        out.print(f"  {feed}: {rows:,} rows", highlight=False)
    for note in report.notes:
        out.print(f"  {note}", highlight=False, soft_wrap=True, markup=False)


def _show_steps(steps: "Sequence[Step]") -> None:
    grid = Grid("run", "assets", "seconds")
    for step in steps:
        grid.add_row(step.name, ", ".join(step.assets), f"{step.seconds:.1f}")
    out.print(grid)


if __name__ == "__main__":
    main()
