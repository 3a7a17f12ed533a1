"""What becomes of a day with too many rejected rows: it is withheld, and stands as withheld until something changes.

Here: the judgement of a step's days before it writes them, which judgements still stand, and the check that warns
before the budget is used up. Not here: the arithmetic (`cleaning/budget.py`).
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl

from retail_platform.cleaning import NOTHING_WAIVED, commonest_reasons, days_over_budget
from retail_platform.contracts import FEEDS, TABLES, Feed
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.partitions import days_of_run
from retail_platform.settings import Settings

WITHHELD = TABLES["quarantine.withheld_days"]
WARNING_SHARE = 0.5
"""Share of the budget from which on the check warns."""

_SHOWN_DAYS = 3


def withheld_days(
    lakehouse: Lakehouse, feed: Feed, raw: pl.DataFrame, rejected: pl.DataFrame, *, lake_snapshot: int, run_id: str
) -> pl.DataFrame:
    """The days of `raw` that are over the budget of rejected rows, as rows of quarantine.withheld_days.

    `lake_snapshot` is one at which the items and stores were as the rows were judged by.
    """
    settings = lakehouse.settings.feed(feed.name)

    def over(waivers: pl.DataFrame) -> pl.DataFrame:
        return days_over_budget(
            raw,
            rejected,
            waivers,
            budget=settings.reject_budget,
            tolerated=settings.tolerated_rejects,
            by_day=feed.date_column is not None,
        )

    # Waivers and names are looked up for bad days only, which are rare.
    if over(NOTHING_WAIVED).is_empty():
        return WITHHELD.empty()
    waivers = waivers_of(lakehouse, feed)
    days = over(waivers)
    if days.is_empty():
        return WITHHELD.empty()
    names = dict(lakehouse.read("raw.ingested_files", columns=["file_id", "file_name"]).iter_rows())
    rows = [
        {
            **day,
            "feed": feed.name,
            "waived": _of_day(waivers, day["partition_date"]).height,
            "reject_budget": settings.reject_budget,
            "reasons": commonest_reasons(_of_day(rejected, day["partition_date"]), names),
            "feed_settings": settings_digest(lakehouse.settings, feed),
            "lake_snapshot": lake_snapshot,
            "run_id": run_id,
            "withheld_at": datetime.now(UTC).replace(tzinfo=None),
        }
        for day in days.iter_rows(named=True)
    ]
    return WITHHELD.validate(pl.DataFrame(rows, schema=WITHHELD.polars_schema))


def refusal(withheld: pl.DataFrame) -> str:
    """Why these days of one feed (rows of quarantine.withheld_days) were not written, and the remedy, in words."""
    first = withheld.row(0, named=True)
    feed, budget = FEEDS[first["feed"]], first["reject_budget"]
    days = [
        f"{day['partition_date'] or 'the whole table'}: {day['rejected']:,} of {day['arrived']:,} rows "
        f"({day['rejected'] / day['arrived']:.1%}): {'; '.join(day['reasons'])}"
        for day in withheld.head(_SHOWN_DAYS).iter_rows(named=True)
    ]
    if withheld.height > _SHOWN_DAYS:
        days.append(f"and {withheld.height - _SHOWN_DAYS:,} more days")
    what = f"{withheld.height} days of {feed.clean_table} are" if feed.date_column else f"{feed.clean_table} is"
    return (
        f"{what} withheld, because more rows of {feed.name} would be rejected than its reject budget of {budget:.1%} "
        f"allows; what was there before stays. {'. '.join(days)}. Look at the rows with `retail-platform quarantine "
        f"show --feed {feed.name}`; mend the files' mapping, the masters or the settings and judge them again with "
        f"`quarantine replay`, or accept the loss with `quarantine waive`, or raise feeds.{feed.name}.reject_budget"
    )


def standing(lakehouse: Lakehouse, masters_changed_at: int) -> pl.DataFrame:
    """The withheld days that would be withheld again: since then no row of theirs arrived and none was waived, and the
    settings of the feed and the masters (last changed by the snapshot `masters_changed_at`) are the same.
    """
    withheld = lakehouse.read(WITHHELD.name)
    unchanged = [
        row
        for row in withheld.iter_rows(named=True)
        if row["feed_settings"] == settings_digest(lakehouse.settings, FEEDS[row["feed"]])
        and masters_changed_at <= row["lake_snapshot"]
        and (row["arrived"], row["waived"]) == _present_counts(lakehouse, row["feed"], row["partition_date"])
    ]
    return pl.DataFrame(unchanged, schema=WITHHELD.polars_schema)


def waivers_of(lakehouse: Lakehouse, feed: Feed) -> pl.DataFrame:
    """The rows of a feed that somebody accepted as lost: file_id, row_number, partition_date."""
    return lakehouse.read(
        "quarantine.waivers",
        columns=["file_id", "row_number", "partition_date"],
        where="feed = ?",
        parameters=[feed.name],
    )


def settings_digest(settings: Settings, feed: Feed) -> str:
    """Changes with every setting that decides about a row of the feed."""
    facts = [settings.start_date.isoformat(), settings.feed(feed.name).model_dump(mode="json")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def reject_budget_checks() -> list[dg.AssetChecksDefinition]:
    return [_reject_budget_check(feed) for feed in FEEDS.values()]


def _reject_budget_check(feed: Feed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=feed.clean_table.split("."),
        name="reject_budget",
        blocking=False,
        description=f"No day of the run has used up more than {WARNING_SHARE:.0%} of its budget of rejected rows.",
    )
    def reject_budget(
        context: dg.AssetCheckExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]
    ) -> dg.AssetCheckResult:
        settings = lakehouse.settings.feed(feed.name)
        days = _rejected_by_day(lakehouse, feed, days_of_run(context) if feed.date_column else None)
        near = days.filter(pl.col("rejected") > settings.tolerated_rejects)
        if near.height:
            arrived = _arrived_by_day(lakehouse, feed, near["day"].to_list())
            near = near.join(arrived, on="day", nulls_equal=True).filter(
                pl.col("rejected") > WARNING_SHARE * settings.reject_budget * pl.col("arrived")
            )
        return dg.AssetCheckResult(
            passed=near.is_empty(),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "reject_budget": settings.reject_budget,
                "rejected": int(days["rejected"].sum()),
                "days_near_the_budget": near.head(_SHOWN_DAYS).with_columns(pl.col("day").cast(pl.String)).to_dicts(),
            },
        )

    return reject_budget


def _rejected_by_day(lakehouse: Lakehouse, feed: Feed, days: tuple[date, date] | None) -> pl.DataFrame:
    """Rejected rows that are not waived: day (null for a feed that is not cut into days), rejected."""
    of_run, parameters = ("AND partition_date BETWEEN ? AND ?", list(days)) if days else ("", [])
    return lakehouse.query(
        f"SELECT {_day(feed)} AS day, count(*) AS rejected "
        "FROM quarantine.rejected_rows ANTI JOIN quarantine.waivers USING (feed, file_id, row_number) "
        f"WHERE feed = ? {of_run} GROUP BY ALL ORDER BY ALL",
        [feed.name, *parameters],
    )


def _arrived_by_day(lakehouse: Lakehouse, feed: Feed, days: Sequence[date | None]) -> pl.DataFrame:
    where, parameters = ("WHERE partition_date IN (SELECT unnest(?))", [days]) if feed.date_column else ("", [])
    return lakehouse.query(
        f"SELECT {_day(feed)} AS day, count(*) AS arrived FROM {feed.raw_table} {where} GROUP BY ALL", parameters
    )


def _day(feed: Feed) -> str:
    return "partition_date" if feed.date_column else "NULL::DATE"


def _present_counts(lakehouse: Lakehouse, feed: str, day: date | None) -> tuple[int, int]:
    """Rows that have arrived, and waivers."""
    of_day, parameters = ("WHERE partition_date = $2", [feed, day]) if day else ("WHERE true", [feed])
    counts = lakehouse.query(
        f"SELECT (SELECT count(*) FROM {FEEDS[feed].raw_table} {of_day}), "
        f"(SELECT count(*) FROM quarantine.waivers {of_day} AND feed = $1)",
        parameters,
    )
    return counts.row(0)


def _of_day(rows: pl.DataFrame, day: date | None) -> pl.DataFrame:
    return rows if day is None else rows.filter(partition_date=day)
