"""Whether a challenger may take a champion's place: the paired comparison of their forecasts, and the rule.

Here: both models' errors on the same days of the same series from the same cutoffs, the standard error of the
difference, the guarded segments, and the verdict in words. Not here: the forecasts themselves
(`forecasting/backtest.py`), the gate against seasonal naive (`forecasting/training.py`), and what follows from a
verdict (`orchestration/`).

The standard error is the larger of two: that over series, where all days of a series count as one observation, and
that over cutoffs, where all series of a cutoff do. Errors of a series are alike from day to day, and errors of one
month are alike from series to series; taking days for independent would find a difference in any noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.forecasting.training_set import HorizonBlock, name_of_block
from retail_platform.settings import ChampionSettings

PAIR = [*SERIES, "cutoff", "date"]

EVERYTHING = "all"
WAPE, BIAS = "wape", "bias"

SMALLEST_SHARE = 0.01
"""Segments with a smaller share of the units are shown and not guarded: their error is mostly chance."""

_SHOWN_SEGMENTS = 3

FIGURES = [
    "segment",
    "metric",
    "series",
    "cutoffs",
    "opponent_value",
    "challenger_value",
    "improvement",
    "standard_error",
    "guarded",
    "holds",
]
"""Columns of the figures of a comparison, in their order."""


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger won, the sentence that says why, and the figures behind it.

    `figures` has one row per segment and metric, in the columns FIGURES; improvement is above 0 where the challenger
    is better. `same` where every forecast was the opponent's: settings that differ in words alone.
    """

    won: bool
    text: str
    figures: pl.DataFrame
    same: bool = False


def challenge(
    challenger: pl.DataFrame,
    opponent: pl.DataFrame,
    demand: pl.DataFrame,
    blocks: Sequence[HorizonBlock],
    rule: ChampionSettings,
    *,
    name: str,
) -> Verdict:
    """Judge a challenger by its backtest forecasts against those of the opponent called `name`.

    Both frames hold store_id, item_id, cutoff, date, horizon and mean; the challenger's also units, null on days that
    are not scored. Only days that both forecast count. The challenger wins if its WAPE over all of them is lower by
    more than `rule.standard_errors` standard errors and every guarded segment holds. Where no standard error is
    defined, with a single series or cutoff, it does not win: one observation shows no difference.
    """
    figures = compare(challenger, opponent, demand, blocks, rule)
    both = challenger.join(opponent.select(*PAIR, other="mean"), on=PAIR, how="full")
    same = bool(both.select(pl.col("mean").eq_missing(pl.col("other")).all()).item())
    if figures.filter(pl.col("metric") == WAPE).is_empty():
        return Verdict(won=False, text=f"not compared with {name}: no scored day was forecast by both", figures=figures)
    overall = figures.row(by_predicate=(pl.col("segment") == EVERYTHING) & (pl.col("metric") == WAPE), named=True)
    gain, error = overall["improvement"], overall["standard_error"]
    better = gain is not None and error is not None and gain > rule.standard_errors * error
    broken = figures.filter(pl.col("guarded") & ~pl.col("holds"))
    text = _in_words(overall, rule, name, better=better)
    if broken.height:
        worse = [_worsening(row) for row in broken.head(_SHOWN_SEGMENTS).iter_rows(named=True)]
        more = f" and {broken.height - len(worse)} more" if broken.height > len(worse) else ""
        text += f"; guarded and worse than allowed: {', '.join(worse)}{more}"
    return Verdict(won=better and broken.is_empty(), text=text, figures=figures, same=same)


def compare(
    challenger: pl.DataFrame,
    opponent: pl.DataFrame,
    demand: pl.DataFrame,
    blocks: Sequence[HorizonBlock],
    rule: ChampionSettings,
) -> pl.DataFrame:
    """The figures of a `Verdict`: WAPE in all, by horizon block, department and store, and the size of the bias in all.

    The standard error of the bias is not computed: it is guarded, and decides nothing by its improvement.
    """
    pairs = _by_segment(_pairs(challenger, opponent), demand, blocks)
    wape = _wape(pairs, rule)
    bias = _bias(pairs.filter(pl.col("segment") == EVERYTHING), rule)
    return pl.concat([wape, bias])


def _pairs(challenger: pl.DataFrame, opponent: pl.DataFrame) -> pl.DataFrame:
    """Days that both forecast and whose units are known, with the errors of either."""
    own, other = pl.col("mean") - pl.col("units"), pl.col("other_mean") - pl.col("units")
    return (
        challenger.filter(pl.col("units").is_not_null())
        .join(opponent.select(*PAIR, other_mean="mean"), on=PAIR)
        .select(*PAIR, "horizon", "units", own=own, other=other)
        .sort(PAIR)
    )


def _by_segment(pairs: pl.DataFrame, demand: pl.DataFrame, blocks: Sequence[HorizonBlock]) -> pl.DataFrame:
    """The pairs once for each segment that they are part of: segment, kind (what the segments are cut by)."""
    departments = demand.group_by(SERIES).agg(pl.col("department").sort_by("date").last())
    known = pairs.join(departments, on=SERIES, how="left", maintain_order="left")
    cuts = {
        EVERYTHING: pl.lit(EVERYTHING),
        "horizon": name_of_block(blocks),
        "department": pl.format("department {}", "department"),
        "store": pl.format("store {}", "store_id"),
    }
    parts = [known.with_columns(kind=pl.lit(kind), segment=segment) for kind, segment in cuts.items()]
    return pl.concat(parts).filter(pl.col("segment").is_not_null())


def _wape(pairs: pl.DataFrame, rule: ChampionSettings) -> pl.DataFrame:
    units = pl.col("units").sum()
    everything = pl.col("units").filter(pl.col("segment") == EVERYTHING).sum()
    by_series, by_cutoff = _standard_errors(pairs, SERIES, "series"), _standard_errors(pairs, ["cutoff"], "cutoffs")
    opponent, challenger = pl.col("opponent_value"), pl.col("challenger_value")
    return (
        pairs.group_by("kind", "segment", maintain_order=True)
        .agg(
            opponent_value=_ratio(pl.col("other").abs().sum(), units),
            challenger_value=_ratio(pl.col("own").abs().sum(), units),
            units=units,
        )
        .join(by_series, on="segment", how="left", maintain_order="left")
        .join(by_cutoff, on="segment", how="left", maintain_order="left")
        .select(
            "segment",
            pl.col("series", "cutoffs").cast(pl.Int64),
            "opponent_value",
            "challenger_value",
            metric=pl.lit(WAPE),
            improvement=opponent - challenger,
            # Null where either is: `max_horizontal` alone would take the one that is there.
            standard_error=pl.when(pl.col("error_series").is_not_null() & pl.col("error_cutoffs").is_not_null()).then(
                pl.max_horizontal("error_series", "error_cutoffs")
            ),
            guarded=pl.col("kind").is_in(list(rule.guarded)) & (pl.col("units") >= SMALLEST_SHARE * everything),
            holds=(challenger <= opponent * (1 + rule.segment_tolerance)).fill_null(value=True),
        )
        .select(FIGURES)
    )


def _bias(pairs: pl.DataFrame, rule: ChampionSettings) -> pl.DataFrame:
    units = pl.col("units").sum()
    opponent, challenger = pl.col("opponent_value"), pl.col("challenger_value")
    return pairs.select(
        segment=pl.lit(EVERYTHING),
        metric=pl.lit(BIAS),
        series=pl.struct(SERIES).n_unique().cast(pl.Int64),
        cutoffs=pl.col("cutoff").n_unique().cast(pl.Int64),
        opponent_value=_ratio(pl.col("other").sum().abs(), units),
        challenger_value=_ratio(pl.col("own").sum().abs(), units),
    ).select(
        pl.all(),
        improvement=opponent - challenger,
        standard_error=pl.lit(None, pl.Float64),
        guarded=pl.lit(value=True),
        holds=(challenger <= opponent + rule.bias_tolerance).fill_null(value=True),
    )


def _standard_errors(pairs: pl.DataFrame, cluster: Sequence[str], name: str) -> pl.DataFrame:
    """Standard error of the difference of two WAPEs by segment, with the clusters as observations; null with one.

    The difference is a ratio of sums, gain / units, whose error is that of the residuals gain - difference * units.
    """
    gain, units, count = pl.col("gain"), pl.col("units"), pl.len()
    residual = gain - gain.sum() / units.sum() * units
    error = (count / (count - 1) * (residual**2).sum()).sqrt() / units.sum()
    return (
        pairs.group_by("segment", *cluster, maintain_order=True)
        .agg(gain=(pl.col("other").abs() - pl.col("own").abs()).sum(), units=pl.col("units").sum())
        .group_by("segment", maintain_order=True)
        .agg(
            count.alias(name),
            pl.when((count > 1) & (units.sum() > 0)).then(error).alias(f"error_{name}"),
        )
    )


def _ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
    return pl.when(below > 0).then(above / below)


def _in_words(overall: dict[str, object], rule: ChampionSettings, name: str, *, better: bool) -> str:
    seen = f"{overall['series']} series from {overall['cutoffs']} cutoffs"
    if overall["improvement"] is None:
        return f"not better than {name}: nothing was sold on the days that both forecast"
    if overall["standard_error"] is None:
        return f"not better than {name}: {seen} are too few to tell a difference from chance"
    size = f"{overall['improvement']:+.4f} with a standard error of {overall['standard_error']:.4f}, {seen}"
    values = f"WAPE {overall['challenger_value']:.4f} against {overall['opponent_value']:.4f}"
    asked = f"{rule.standard_errors:g} standard errors are asked for"
    return f"{'better' if better else 'not better'} than {name}: {values} (improvement {size}; {asked})"


def _worsening(row: dict[str, object]) -> str:
    what = "bias" if row["metric"] == BIAS else str(row["segment"])
    return f"{what} {row['challenger_value']:.4f} against {row['opponent_value']:.4f}"
