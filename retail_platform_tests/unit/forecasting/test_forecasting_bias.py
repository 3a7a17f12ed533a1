"""Bias factors: learned where a bias lasts, left alone where it is chance."""

from datetime import date

import polars as pl
import pytest

from retail_platform.forecasting.bias import BiasFactors


def errors(*ratios: float, store: str = "S1", department: str | None = "D") -> pl.DataFrame:
    """One cutoff per ratio of units to the forecast mean."""
    return pl.DataFrame(
        {
            "store_id": store,
            "department": pl.Series([department] * len(ratios), dtype=pl.String),
            "cutoff": [date(2017, month, 1) for month in range(1, len(ratios) + 1)],
            "mean": 100.0,
            "units": [100 * ratio for ratio in ratios],
        }
    )


def corrected(factors: BiasFactors, store: str = "S1", department: str | None = "D") -> float:
    forecast = pl.DataFrame(
        {"store_id": [store], "department": [department], "mean": [10.0]}, schema_overrides={"department": pl.String}
    )
    return float(factors.apply(forecast)["mean"].item())


def test_a_bias_that_lasts_is_corrected() -> None:
    assert corrected(BiasFactors.fit(errors(1.03, 1.031, 1.029, 1.03))) == pytest.approx(10.3, abs=0.01)


def test_a_bias_that_changes_sign_is_left_alone() -> None:
    assert corrected(BiasFactors.fit(errors(1.06, 0.95, 1.03, 0.97))) == 10


def test_a_bias_that_varies_is_corrected_in_part() -> None:
    # The mean of the logarithms is about 0.03, its standard error half of it: a quarter of the correction is withheld.
    factor = corrected(BiasFactors.fit(errors(1.06, 1.0, 1.06, 1.0))) / 10
    assert 1.015 < factor < 1.025


def test_no_correction_exceeds_five_per_cent() -> None:
    assert corrected(BiasFactors.fit(errors(1.5, 1.5, 1.5))) == pytest.approx(10.5)
    assert corrected(BiasFactors.fit(errors(0.5, 0.5, 0.5))) == pytest.approx(9.5)


@pytest.mark.parametrize("past", [None, errors(1.2), errors(0.0, 0.0)])
def test_without_two_cutoffs_with_sales_nothing_is_corrected(past: pl.DataFrame | None) -> None:
    assert BiasFactors.fit(past) == BiasFactors({})


def test_each_store_and_department_has_its_own_factor_also_an_unknown_one() -> None:
    both = pl.concat([errors(1.02, 1.02), errors(0.98, 0.98, store="S2", department=None)])
    factors = BiasFactors.fit(both)
    assert corrected(factors) == pytest.approx(10.2)
    assert corrected(factors, "S2", None) == pytest.approx(9.8)
    assert corrected(factors, "S2", "D") == 10
    assert BiasFactors.from_json(factors.to_json()) == factors
