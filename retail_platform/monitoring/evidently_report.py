"""The adapter to Evidently: distances between two samples, and the report that shows them.

Here: the only import of Evidently, and the conversion to pandas that it needs. Not here: which windows and columns
are compared, and what a distance means (`drift.py`).

Distances, not p-values: with thousands of rows a test calls every difference significant. For numbers the
Wasserstein distance in standard deviations of the reference, for categories the Jensen-Shannon distance.
"""

import gc
import os
from collections.abc import Collection
from html import escape
from typing import Any

import polars as pl

NUMBER_METHOD = "wasserstein"
CATEGORY_METHOD = "jensenshannon"


def drift_report(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    *,
    numbers: list[str],
    categories: list[str],
    threshold: float,
    share_of_columns: float,
    not_counted: Collection[str] = (),
) -> tuple[dict[str, float], str]:
    """Distance of each column between two samples, and Evidently's report as one HTML page that loads nothing.

    The page says that the table has drifted if at least `share_of_columns` of the columns have, those `not_counted`
    left out. A column of which a sample has no value must be left out altogether: Evidently cannot measure it. With
    no columns at all there are no distances and the page is empty.
    """
    if not numbers and not categories:
        return {}, ""
    # Evidently reports its use over the network in some of its parts; none of that is wanted here.
    os.environ["DO_NOT_TRACK"] = "1"
    # Its thousands of modules stay; to look through them for garbage again and again is a quarter of their import.
    looks_for_garbage = gc.isenabled()
    gc.disable()
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift
        from evidently.presets import DataDriftPreset
    finally:
        if looks_for_garbage:
            gc.enable()

    # Evidently writes names and values into its page as they are.
    shown = {name: escape(name) for name in [*numbers, *categories]}
    definition = DataDefinition(
        numerical_columns=[shown[name] for name in numbers], categorical_columns=[shown[name] for name in categories]
    )

    def dataset(sample: pl.DataFrame) -> Any:
        safe = sample.select(
            *(pl.col(name).cast(pl.Float64).alias(shown[name]) for name in numbers),
            *(pl.col(name).cast(pl.String).map_elements(escape, pl.String).alias(shown[name]) for name in categories),
        )
        return Dataset.from_pandas(safe.to_pandas(), data_definition=definition)

    counted = DataDriftPreset(
        columns=[shown[name] for name in shown if name not in not_counted],
        num_method=NUMBER_METHOD,
        num_threshold=threshold,
        cat_method=CATEGORY_METHOD,
        cat_threshold=threshold,
        drift_share=share_of_columns,
    )
    others = [
        ValueDrift(
            column=shown[name], method=NUMBER_METHOD if name in numbers else CATEGORY_METHOD, threshold=threshold
        )
        for name in shown
        if name in not_counted
    ]
    snapshot = Report([counted, *others] if len(others) < len(shown) else others).run(
        dataset(current), dataset(reference)
    )
    found = {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if "column" in metric["config"]
    }
    return {name: found[shown[name]] for name in shown}, str(snapshot.get_html_str(as_iframe=False))
