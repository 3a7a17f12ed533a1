"""The distances must be the documented ones, and the report a page that stands alone."""

import re
import socket
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]
from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

from retail_platform.monitoring.evidently_report import drift_report

RNG = np.random.default_rng(2)
REFERENCE = pl.DataFrame(
    {
        "units": RNG.poisson(4.0, 2_000).astype(np.float32),
        "price": pl.Series([None if n % 3 else float(n % 7) for n in range(2_000)], dtype=pl.Float32),
        "listed": pl.Series(["true"] * 1_800 + ["false"] * 200),
    }
)
CURRENT = pl.DataFrame(
    {
        "units": RNG.poisson(5.0, 1_500).astype(np.float32),
        "price": pl.Series([None if n % 2 else float(n % 9) for n in range(1_500)], dtype=pl.Float32),
        "listed": pl.Series(["true"] * 900 + ["false"] * 600),
    }
)


def report(reference: pl.DataFrame, current: pl.DataFrame, categories: list[str]) -> tuple[dict[str, float], str]:
    numbers = [name for name in reference.columns if name not in categories]
    return drift_report(
        reference, current, numbers=numbers, categories=categories, threshold=0.15, share_of_columns=0.5
    )


def test_distances_are_normed_wasserstein_and_jensen_shannon() -> None:
    distances, _ = report(REFERENCE, CURRENT, ["listed"])
    for name in ("units", "price"):
        before, after = (frame[name].drop_nulls().to_numpy().astype(float) for frame in (REFERENCE, CURRENT))
        assert distances[name] == pytest.approx(wasserstein_distance(before, after) / before.std())
    assert distances["listed"] == pytest.approx(jensenshannon([0.9, 0.1], [0.6, 0.4]))


def test_nothing_is_sent_and_the_page_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the report opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    _, page = report(REFERENCE, CURRENT, ["listed"])
    assert not re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?(?!data:)[^>]+>", page)
    assert not re.findall(r"<link[^>]+href=[\"']?(?:https?:)?//", page)


def test_names_and_values_cannot_become_markup() -> None:
    bad = "<script>alert('x')</script>"
    frames = [
        frame.rename({"listed": bad}).with_columns(pl.col(bad).replace("false", bad)) for frame in (REFERENCE, CURRENT)
    ]
    distances, page = report(frames[0], frames[1], [bad])
    assert set(distances) == {"units", "price", bad}
    assert bad not in page


def test_columns_that_do_not_count_are_measured_and_left_out_of_the_share() -> None:
    numbers, categories = ["units", "price"], ["listed"]

    def page_without(*names: str) -> tuple[dict[str, float], str]:
        return drift_report(
            REFERENCE,
            CURRENT,
            numbers=numbers,
            categories=categories,
            threshold=0.15,
            share_of_columns=0.5,
            not_counted=names,
        )

    all_counted, page = page_without()
    assert "(3 out of 3)" in page
    assert page_without("price", "listed")[0] == all_counted
    assert "(1 out of 1)" in page_without("price", "listed")[1]
    assert page_without("units", "price", "listed")[0] == all_counted


def test_no_columns_give_no_distances() -> None:
    assert report(pl.DataFrame(), pl.DataFrame(), []) == ({}, "")


def test_evidently_is_imported_only_when_a_report_is_made() -> None:
    code = (
        "import sys, retail_platform.monitoring.drift, retail_platform.monitoring.evidently_report;"
        "print([m for m in ('evidently', 'sklearn', 'scipy', 'plotly') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
