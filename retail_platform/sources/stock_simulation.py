"""The replenishment rule behind every simulated stock figure.

Here: a periodic-review order-up-to rule run over daily demand, for the simulator and for data sets that come
without stock. Not here: the order proposals of the platform (`replenishment/`), which rest on forecasts; this
rule stands for the shop as it was before, and knows nothing but its own past.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Units = npt.NDArray[np.float64]
Days = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MEMORY_DAYS = 28
ROUNDING = 1e-9
"""Units and cases by which two numbers must differ to be taken for different."""


@dataclass(frozen=True)
class StockSimulation:
    """Stock of every series on every day; each array is [series, days] in units, except `opening_stock`.

    On each day: on_hand(t) = on_hand(t - 1) + arrivals(t) + emergency_deliveries(t) - sales(t), where
    on_hand(-1) is `opening_stock` [series]. `on_hand` and `on_order` are those of the close of the day, the order
    of that evening included.
    """

    opening_stock: Units
    on_hand: Units
    on_order: Units
    sales: Units
    arrivals: Units
    emergency_deliveries: Units


def simulate_stock(
    demand: Units,
    *,
    lead_time_days: int | Days,
    review_period_days: int,
    case_pack: int | Days,
    service_level: float = 0.95,
    expected_demand: Units | None = None,
    listed: Flags | None = None,
    censor: bool,
) -> StockSimulation:
    """Run a periodic-review order-up-to rule over daily demand, without looking ahead.

    A day opens with the arrivals, then sells, then closes; every `review_period_days` an order is placed at the
    close, in whole cases, that raises stock on hand and on order to

        mean * (R + L) + z(service_level) * std * sqrt(R + L)

    with R the review period and L the lead time: an order placed at the close of t is on the shelf at the opening
    of t + L + 1. Mean and standard deviation are exponentially weighted over about the last 28 days of sales; a
    day on which the shelf ran empty can only raise them, because its sales say little about its demand.

    `demand` is [series, days] and not negative. `lead_time_days` and `case_pack` are one number or one per series.
    `expected_demand` [series] is what the shop expected per day at the start (nothing where not given), which also
    sets the opening stock. `listed` [series, days] says when an item is in the range: an order is placed only if
    the item is listed on the day of its arrival. The range is planned, so that this is no look into the future.

    With `censor` no more is sold than is there: sales = min(demand, stock). Without it `demand` is what was really
    sold and stays untouched; where the stock falls short of it, an emergency delivery of whole cases arrives the
    same day and leaves at least something on the shelf, so that no stock-out is made up on a day of real sales.

    Raises `ValueError` naming every unusable argument.
    """
    series, days = demand.shape
    lead_time = np.broadcast_to(np.asarray(lead_time_days, np.int64), series)
    case = np.broadcast_to(np.asarray(case_pack, np.float64), series)
    _check(demand, lead_time, review_period_days, case, service_level)
    if listed is None:
        listed = np.ones((series, days), np.bool_)
    protection = (review_period_days + lead_time).astype(np.float64)
    safety = NormalDist().inv_cdf(service_level) * np.sqrt(protection)
    seen = _TrailingDemand(series, expected_demand)

    def wanted(position: Units) -> Units:
        missing = seen.mean * protection + safety * seen.standard_deviation - position
        # Without it an error in the sixteenth digit would order a whole case more.
        return np.ceil(np.maximum(missing / case - ROUNDING, 0.0)) * case

    rows = np.arange(series)
    pipeline = np.zeros((series, days + int(lead_time.max(initial=0)) + 1))
    on_hand, on_order, sales, emergency = (np.zeros((series, days)) for _ in range(4))
    opening_stock = np.where(listed[:, 0], wanted(np.zeros(series)), 0.0) if days else np.zeros(series)
    stock, ordered = opening_stock.copy(), np.zeros(series)
    for day in range(days):
        stock += pipeline[:, day]
        ordered -= pipeline[:, day]
        if censor:
            sales[:, day] = np.minimum(demand[:, day], stock)
        else:
            short = demand[:, day] - stock
            emergency[:, day] = np.where(short > 0, (np.floor(short / case) + 1) * case, 0.0)
            sales[:, day] = demand[:, day]
        stock += emergency[:, day] - sales[:, day]
        seen.update(sales[:, day], empty=stock <= 0, listed=listed[:, day])
        if (day + 1) % review_period_days == 0:
            arrival = day + lead_time + 1
            order = np.where(listed[rows, np.minimum(arrival, days - 1)], wanted(stock + ordered), 0.0)
            pipeline[rows, arrival] += order
            ordered += order
        on_hand[:, day], on_order[:, day] = stock, ordered
    return StockSimulation(opening_stock, on_hand, on_order, sales, pipeline[:, :days], emergency)


class _TrailingDemand:
    """Exponentially weighted mean and standard deviation per series, unbiased from the first day on."""

    def __init__(self, series: int, expected: Units | None) -> None:
        self.mean = np.zeros(series) if expected is None else expected
        self._weight = np.full(series, 0.0 if expected is None else 1.0)
        # An expectation without experience is taken to vary like a Poisson count: the variance is the mean.
        self._squared_deviations = self.mean

    @property
    def standard_deviation(self) -> Units:
        deviation: Units = np.sqrt(self._squared_deviations / np.maximum(self._weight, 1e-12))
        return deviation

    def update(self, sold: Units, *, empty: Flags, listed: Flags) -> None:
        """Weighted incremental mean and variance (West 1979), with weights that fade."""
        # Without it such an error would decide whether a day that sold the mean and ran empty counts.
        informative = listed & (~empty | (sold > self.mean + ROUNDING))
        new = np.where(informative, 1 / MEMORY_DAYS, 0.0)
        kept = np.where(informative, 1 - 1 / MEMORY_DAYS, 1.0)
        surprise = sold - self.mean
        self._weight = self._weight * kept + new
        self.mean = self.mean + surprise * (new / np.maximum(self._weight, 1e-12))
        self._squared_deviations = self._squared_deviations * kept + new * surprise * (sold - self.mean)


def _check(demand: Units, lead_time: Days, review_period_days: int, case: Units, service_level: float) -> None:
    wrong = []
    if not np.all(demand >= 0):
        wrong.append("demand must be numbers of at least 0 (net returns or leave them out first)")
    if not np.all(lead_time >= 0):
        wrong.append("lead_time_days must be at least 0")
    if review_period_days < 1:
        wrong.append(f"review_period_days must be at least 1, not {review_period_days}")
    if not np.all(case >= 1):
        wrong.append("case_pack must be at least 1")
    if not (0 < service_level < 1 and math.isfinite(service_level)):
        wrong.append(f"service_level must lie between 0 and 1, not {service_level}")
    if wrong:
        raise ValueError("stock simulation: " + "; ".join(wrong))
