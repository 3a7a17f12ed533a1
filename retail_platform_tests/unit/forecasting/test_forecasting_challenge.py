"""The comparison of a challenger with the champion, and the rule: figures by hand, and no promotion by chance."""

import math
from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.forecasting.challenge import Verdict, challenge, compare
from retail_platform.forecasting.training_set import HorizonBlock
from retail_platform.settings import ChampionSettings

RULE = ChampionSettings()
BLOCKS = [HorizonBlock(1, 1), HorizonBlock(2, 2)]
FIRST = date(2017, 5, 1)

# store, item, cutoff number, horizon -> units, challenger's mean, champion's mean
Days = Mapping[tuple[str, str, int, int], tuple[float | None, float, float]]


def frames(days: Days, departments: Mapping[str, str | None] | None = None) -> tuple[pl.DataFrame, ...]:
    """Challenger, champion and panel of these days."""
    rows = [
        {
            "store_id": store,
            "item_id": item,
            "cutoff": FIRST + timedelta(days=28 * fold),
            "date": FIRST + timedelta(days=28 * fold + horizon),
            "horizon": horizon,
            "units": units,
            "mean": own,
            "other": other,
        }
        for (store, item, fold, horizon), (units, own, other) in days.items()
    ]
    both = pl.DataFrame(rows, schema_overrides={"units": pl.Float64, "mean": pl.Float64, "other": pl.Float64})
    panel = both.select("store_id", "item_id", "date").with_columns(
        department=pl.col("item_id").replace_strict(departments or {}, default="FOOD", return_dtype=pl.String)
    )
    opponent = both.drop("mean").rename({"other": "mean"})
    return both.drop("other"), opponent, panel


def judged(days: Days, rule: ChampionSettings = RULE, departments: Mapping[str, str | None] | None = None) -> Verdict:
    return challenge(*frames(days, departments), BLOCKS, rule, name="the champion C1")


def noise(seed: int, series: int, cutoffs: int, *, gain: float = 0.0, common: float = 0.0) -> Days:
    """Two models that err alike, but for `gain` units per day; `common` makes all series of a cutoff err together."""
    random = np.random.default_rng(seed)
    days: dict[tuple[str, str, int, int], tuple[float | None, float, float]] = {}
    for fold in range(cutoffs):
        month = random.normal(0, common)
        for number in range(series):
            for horizon in (1, 2):
                own, other = (abs(random.normal(2, 1)) for _ in range(2))
                days["S", f"I{number}", fold, horizon] = (10, 10 + max(own + month - gain, 0), 10 + other)
    return days


def test_wape_improvement_and_standard_error_are_those_computed_by_hand() -> None:
    # Errors of the champion less those of the challenger: A 2, B 0 at the first cutoff; A 1, B 1 at the second.
    days: Days = {
        ("S", "A", 0, 1): (10, 11, 13),
        ("S", "B", 0, 1): (10, 12, 8),
        ("S", "A", 1, 1): (10, 9, 12),
        ("S", "B", 1, 1): (10, 10, 11),
    }
    figures = compare(*frames(days), BLOCKS, RULE)
    row = figures.row(by_predicate=(pl.col("segment") == "all") & (pl.col("metric") == "wape"), named=True)
    assert (row["series"], row["cutoffs"]) == (2, 2)
    assert row["challenger_value"] == pytest.approx(4 / 40)
    assert row["opponent_value"] == pytest.approx(8 / 40)
    assert row["improvement"] == pytest.approx(0.1)
    # By series: gains 3 and 1 on 20 units each, residuals +1 and -1. By cutoff: gains 2 and 2, no residual.
    assert row["standard_error"] == pytest.approx(math.sqrt(2 / 1 * (1 + 1)) / 40)
    bias = figures.row(by_predicate=pl.col("metric") == "bias", named=True)
    assert bias["challenger_value"] == pytest.approx(abs(1 + 2 - 1 + 0) / 40)
    assert bias["opponent_value"] == pytest.approx(abs(3 - 2 + 2 + 1) / 40)
    assert bias["standard_error"] is None


def test_the_larger_of_the_two_standard_errors_counts() -> None:
    # Gains by cutoff 4 and 0, by series 2 and 2: months differ, series do not.
    days: Days = {("S", item, fold, 1): (10, 10, 12 if fold == 0 else 10) for item in ("A", "B") for fold in (0, 1)}
    row = compare(*frames(days), BLOCKS, RULE).row(0, named=True)
    assert row["standard_error"] == pytest.approx(math.sqrt(2 / 1 * (2**2 + 2**2)) / 40)


def test_days_without_known_units_or_of_one_model_alone_are_not_compared() -> None:
    days: Days = {("S", item, fold, 1): (10, 11, 12) for item in ("A", "B") for fold in (0, 1)}
    challenger, opponent, panel = frames({**days, ("S", "C", 0, 1): (None, 0, 99), ("S", "D", 0, 1): (10, 99, 10)})
    figures = compare(challenger, opponent.filter(pl.col("item_id") != "D"), panel, BLOCKS, RULE)
    assert figures.row(0, named=True)["series"] == 2
    assert figures.row(0, named=True)["challenger_value"] == pytest.approx(0.1)


def test_a_clear_improvement_wins_and_the_sentence_has_the_figures() -> None:
    verdict = judged(noise(1, 40, 4, gain=1.0))
    assert verdict.won
    for words in ("better than the champion C1", "40 series from 4 cutoffs", "2 standard errors are asked for"):
        assert words in verdict.text


def test_chance_alone_hardly_ever_wins() -> None:
    rule = ChampionSettings(guarded=(), bias_tolerance=10)
    assert sum(judged(noise(seed, 12, 4), rule).won for seed in range(150)) <= 5
    # Months that are good or bad for all series at once are no evidence either, however many series there are.
    assert sum(judged(noise(seed, 30, 3, common=1.0), rule).won for seed in range(100)) <= 10


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.floats(-2, 2))
def test_two_models_never_both_win_and_none_wins_against_its_equal(
    seed: int, series: int, cutoffs: int, gain: float
) -> None:
    challenger, champion, panel = frames(noise(seed, series, cutoffs, gain=gain))
    won = challenge(challenger, champion, panel, BLOCKS, RULE, name="C1").won
    assert not (won and challenge(champion, challenger, panel, BLOCKS, RULE, name="C2").won)
    assert not challenge(challenger, challenger, panel, BLOCKS, RULE, name="itself").won


@pytest.mark.parametrize(("series", "cutoffs"), [(1, 4), (20, 1)])
def test_one_series_or_one_cutoff_shows_no_difference(series: int, cutoffs: int) -> None:
    verdict = judged(noise(1, series, cutoffs, gain=1.5))
    assert not verdict.won
    assert "too few to tell a difference from chance" in verdict.text


def test_a_guarded_segment_that_gets_worse_stops_an_overall_improvement() -> None:
    better: dict[tuple[str, str, int, int], tuple[float | None, float, float]] = dict(noise(1, 40, 4, gain=1.5))
    worse = {
        (store, f"X{item}", *when): (units, other, own)
        for (store, item, *when), (units, own, other) in list(better.items())[:40]
    }
    departments = {item: "DAIRY" if item.startswith("X") else "FOOD" for _, item, *_ in [*better, *worse]}
    days = {**better, **worse}  # type: ignore[dict-item]
    verdict = judged(days, departments=departments)
    assert not verdict.won
    assert "better than the champion C1" in verdict.text
    assert "guarded and worse than allowed: department DAIRY" in verdict.text
    assert judged(days, ChampionSettings(guarded=("horizon",)), departments).won
    assert judged(days, ChampionSettings(segment_tolerance=5), departments).won


def test_a_segment_of_next_to_no_units_is_shown_and_not_guarded() -> None:
    days = dict(noise(1, 40, 4, gain=1.5))
    days["S", "TINY", 0, 1] = (1, 9, 1)
    verdict = judged(days, departments={"TINY": "SPICES"})
    tiny = verdict.figures.row(by_predicate=pl.col("segment") == "department SPICES", named=True)
    assert (tiny["guarded"], tiny["holds"]) == (False, False)
    assert verdict.won


def test_a_bias_that_grows_stops_an_improvement() -> None:
    # The champion errs up and down by 4, the challenger always by 1 too little.
    days: Days = {
        ("S", f"I{item}", fold, 1): (10, 9, 14 if (item + fold) % 2 else 6) for item in range(10) for fold in range(4)
    }
    verdict = judged(days)
    assert not verdict.won
    assert "worse than allowed: bias 0.1000 against 0.0000" in verdict.text
    assert judged(days, ChampionSettings(bias_tolerance=0.2)).won


@pytest.mark.parametrize("units", [None, 0.0])
def test_without_sales_there_is_nothing_to_compare_by(units: float | None) -> None:
    verdict = judged({("S", item, fold, 1): (units, 0, 1) for item in ("A", "B") for fold in (0, 1)})
    assert not verdict.won
    assert "compared" in verdict.text or "nothing was sold" in verdict.text


def test_items_without_a_department_belong_to_no_segment_of_departments() -> None:
    segments = judged(noise(1, 4, 2), departments={f"I{n}": None for n in range(4)}).figures["segment"]
    assert sorted(set(segments)) == ["all", "horizon 1-1", "horizon 2-2", "store S"]
