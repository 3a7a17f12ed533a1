"""An expression of a column at the cost of its different values: days, files, stores and positions repeat.

Here: the shortcut. Not here: what is computed (`table.py`, `cleaning/text.py`).
"""

from collections.abc import Callable

import polars as pl

_MANY_RUNS = 0.01
_MOSTLY_DIFFERENT = 0.5


def each_run_once(column: pl.Expr, of_value: Callable[[pl.Expr], pl.Expr], dtype: pl.DataType) -> pl.Expr:
    """`of_value(column)`, which must be elementwise and of the type `dtype`: computed once for each run of equal values
    where these are long. For what is quick to compute.
    """

    def computed(values: pl.Series) -> pl.Series:
        found = _of_runs(values, of_value)
        return _of(values, of_value) if found is None else found

    return column.map_batches(computed, return_dtype=dtype, is_elementwise=True)


def each_value_once(column: pl.Expr, of_value: Callable[[pl.Expr], pl.Expr], dtype: pl.DataType) -> pl.Expr:
    """The same; where the runs are short, once for each different value, where these are few."""

    def computed(values: pl.Series) -> pl.Series:
        found = _of_runs(values, of_value)
        if found is not None:
            return found
        frame = values.to_frame("value")
        if frame.select(pl.col("value").approx_n_unique()).item() >= _MOSTLY_DIFFERENT * len(values):
            return _of(values, of_value)
        different = frame.unique()["value"]
        return values.replace_strict(different, _of(different, of_value), return_dtype=dtype)

    return column.map_batches(computed, return_dtype=dtype, is_elementwise=True)


def _of_runs(values: pl.Series, of_value: Callable[[pl.Expr], pl.Expr]) -> pl.Series | None:
    runs = values.rle()
    if len(runs) > _MANY_RUNS * len(values):
        return None
    return _of(runs.struct.field("value"), of_value).gather(values.rle_id()).alias(values.name)


def _of(values: pl.Series, of_value: Callable[[pl.Expr], pl.Expr]) -> pl.Series:
    return values.to_frame("value").select(of_value(pl.col("value")).alias(values.name)).to_series()
