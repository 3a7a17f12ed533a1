"""The hierarchy of stores and items: which nodes each series counts towards, and sums over them.

Here: the levels, the nodes, sums of forecasts and of sales, and each node's weight and scales. Not here: the measures
themselves (`forecasting/metrics.py`) and the spread of a node's demand (`forecasting/quantiles.py`).

The levels are those of the M5 competition, in our names: its state is the region, its category our department and its
department our category. A level whose columns are not known, or whose nodes are those of a level before it (a single
store is also the total), is left out, so that no level counts twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from retail_platform.features.dense import SERIES, GroupDays

TOTAL = "total"
LEVELS: dict[str, tuple[str, ...]] = {
    TOTAL: (),
    "region": ("region",),
    "store": ("store_id",),
    "department": ("department",),
    "category": ("category",),
    "region x department": ("region", "department"),
    "region x category": ("region", "category"),
    "store x department": ("store_id", "department"),
    "store x category": ("store_id", "category"),
    "item": ("item_id",),
    "item x region": ("item_id", "region"),
    "item x store": ("item_id", "store_id"),
}
"""Level and the columns whose values name a node of it, from the whole to the series."""

WEIGHT_DAYS = 28

_UNKNOWN = "unknown"
_TOGETHER = " / "


@dataclass(frozen=True)
class Hierarchy:
    """`series`: store_id, item_id and, by the name of each level, the number of the node. `nodes`: level, number, node
    (its name).
    """

    series: pl.DataFrame
    nodes: pl.DataFrame

    @classmethod
    def of(cls, panel: pl.DataFrame) -> "Hierarchy":
        """The hierarchy of the series of a panel with store_id, item_id, department, category and region."""
        names = ["store_id", "item_id", "department", "category", "region"]
        series = panel.select(names).unique(SERIES, keep="last", maintain_order=True).sort(SERIES)
        numbers, nodes = [], []
        cuts: set[tuple[int, ...]] = set()
        for level, columns in LEVELS.items():
            if any(series[name].null_count() == series.height for name in columns):
                continue
            name = pl.concat_str([pl.col(c).fill_null(_UNKNOWN) for c in columns], separator=_TOGETHER)
            named = series.with_columns(node=name if columns else pl.lit(TOTAL)).select(
                "node", number=(pl.col("node").rank("dense") - 1).cast(pl.UInt32)
            )
            cut = _cut(named["number"])
            if cut in cuts:
                continue
            cuts.add(cut)
            numbers.append(named["number"].alias(level))
            nodes.append(named.unique().sort("number").select(level=pl.lit(level), number="number", node="node"))
        return cls(series.select(*SERIES, *numbers), pl.concat(nodes))

    @property
    def levels(self) -> list[str]:
        return self.series.columns[len(SERIES) :]

    @property
    def finest(self) -> str | None:
        """The level whose nodes are the series themselves, if there is one."""
        last = self.levels[-1]
        return last if self.series[last].n_unique() == self.series.height else None

    def sums(self, frame: pl.DataFrame, columns: Sequence[str], by: Sequence[str] = ("date",)) -> pl.DataFrame:
        """Sums of `columns` over the series of each node: level, node, `by`, and the columns; sorted.

        `frame` holds store_id, item_id, `by` and the columns. A null adds nothing; leave out rows that must not count.
        """
        numbered = frame.select(*SERIES, *by, *columns).join(self.series, on=SERIES)
        summed = pl.concat(
            numbered.group_by(pl.col(level).alias("number"), *by)
            .agg(pl.col(columns).sum())
            .with_columns(level=pl.lit(level))
            for level in self.levels
        )
        return (
            summed.join(self.nodes, on=["level", "number"])
            .select("level", "node", *by, *columns)
            .sort("level", "node", *by)
        )


def node_scales(demand: pl.DataFrame, hierarchy: Hierarchy, cutoff: date) -> pl.DataFrame:
    """What the measures of the M5 competition weigh and scale by, from the days to `cutoff`: level, node, weight,
    scale_squared, scale_absolute.

    The scales are the mean squared and the mean absolute change from one day to the next since the first sale, with
    days without stock as they were sold; null where nothing ever changed. The weight is the node's share of its
    level's turnover over the last 28 days; of the units where no price is known, and equal where nothing was sold.
    """
    until = demand.lazy().filter((pl.col("date") <= cutoff) & pl.col("units").is_not_null())
    # Of a large panel the other columns are not copied.
    known = until.select(*SERIES, "date", "price", units=pl.col("units").cast(pl.Float64)).collect()
    recent = known.filter(pl.col("date") > cutoff - timedelta(days=WEIGHT_DAYS))
    turnover = pl.col("units") * (pl.col("price") if recent["price"].null_count() < recent.height else pl.lit(1.0))
    worth = hierarchy.sums(recent.with_columns(turnover=turnover), ["turnover"], by=[])
    scales = pl.concat(_scales(known, hierarchy)).join(hierarchy.nodes, on=["level", "number"])
    share = pl.col("turnover") / pl.col("turnover").sum().over("level")
    return (
        scales.join(worth, on=["level", "node"], how="left")
        .with_columns(pl.col("turnover").fill_null(0))
        .select(
            "level",
            "node",
            weight=pl.when(pl.col("turnover").sum().over("level") > 0)
            .then(share)
            .otherwise(1 / pl.len().over("level")),
            scale_squared=pl.when(pl.col("scale_squared") > 0).then("scale_squared"),
            scale_absolute=pl.when(pl.col("scale_absolute") > 0).then("scale_absolute"),
        )
        .sort("level", "node")
    )


def _scales(known: pl.DataFrame, hierarchy: Hierarchy) -> Iterator[pl.DataFrame]:
    """Of each level: level, number, scale_squared, scale_absolute. The sums of a level are a table of its nodes by day:
    millions of groups by node and day would take many times the time and memory.
    """
    numbers = hierarchy.series.select(*SERIES).with_row_index("series")
    series = known.select(SERIES).join(numbers, on=SERIES, how="left", maintain_order="left")["series"].to_numpy()
    for level in hierarchy.levels:
        node = hierarchy.series[level].to_numpy().astype(np.int64)
        nodes = int(node.max()) + 1
        table = GroupDays.numbered(node[series], nodes, known["date"])
        sums, counts = table.sums(known["units"])
        there = np.flatnonzero(counts)
        change, of = np.diff(sums[there]), there // table.days
        known_nodes = np.bincount(of, minlength=nodes) > 0
        same = of[1:] == of[:-1]
        of, change = of[1:][same], change[same]
        changes = np.maximum(np.bincount(of, minlength=nodes), 1)
        yield pl.DataFrame(
            {
                "level": level,
                "number": pl.Series(np.arange(nodes), dtype=pl.UInt32),
                "scale_squared": np.bincount(of, change**2, nodes) / changes,
                "scale_absolute": np.bincount(of, np.abs(change), nodes) / changes,
            }
        ).filter(pl.Series(known_nodes))


def _cut(numbers: pl.Series) -> tuple[int, ...]:
    """The partition of the series, whatever its parts are called: parts numbered as they first appear."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(number, len(first)) for number in numbers)
