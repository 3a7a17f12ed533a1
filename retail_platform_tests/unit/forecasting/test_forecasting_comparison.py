"""Paired differences with their standard errors, by hand."""

from datetime import date
from math import sqrt

import polars as pl
import pytest

from retail_platform.forecasting.comparison import paired_differences, value_added

VALUES = {"lightgbm": [0.5, 0.7, 0.6], "seasonal_naive": [0.8, 0.8, 0.8], "moving_average": [0.6, 0.7, None]}


def metrics() -> pl.DataFrame:
    return pl.DataFrame(
        [
            (model, date(2017, month + 1, 1), segment, metric, value)
            for model, values in VALUES.items()
            for month, value in enumerate(values)
            for segment in ("all", "class AX")
            for metric in ("wape", "bias")
        ],
        schema={
            "model": pl.String,
            "cutoff": pl.Date,
            "segment": pl.String,
            "metric": pl.String,
            "value": pl.Float64,
        },
        orient="row",
    )


def test_the_difference_its_share_and_its_standard_error() -> None:
    row = paired_differences(metrics(), "lightgbm", "seasonal_naive").row(0, named=True)
    assert (row["segment"], row["metric"], row["cutoffs"]) == ("all", "wape", 3)
    assert (row["own"], row["other"]) == pytest.approx((0.6, 0.8))
    # Saved are 0.3, 0.1 and 0.2: mean 0.2, standard deviation 0.1.
    assert (row["saved"], row["saved_share"]) == pytest.approx((0.2, 0.25))
    assert row["standard_error"] == pytest.approx(0.1 / sqrt(3))


def test_only_cutoffs_that_both_have_are_compared_and_measures_with_an_aim_are_not() -> None:
    differences = paired_differences(metrics(), "lightgbm", "moving_average")
    assert set(differences["metric"]) == {"wape"}
    assert differences["cutoffs"].to_list() == [2, 2]
    assert differences["saved"].to_list() == pytest.approx([0.05, 0.05])


def test_one_cutoff_has_no_standard_error() -> None:
    one = metrics().filter(pl.col("cutoff") == date(2017, 1, 1))
    assert paired_differences(one, "lightgbm", "seasonal_naive")["standard_error"].null_count() == 2


def test_value_added_is_given_for_every_model_but_the_baseline() -> None:
    added = value_added(metrics())
    assert added["model"].to_list() == ["lightgbm", "moving_average"]
    assert added["saved"].to_list() == pytest.approx([0.2, 0.15])
