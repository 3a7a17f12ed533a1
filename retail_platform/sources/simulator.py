"""A retailer of any size that never existed, with the truth about its demand.

Here: the simulation as a pure function of its parameters, its writer, and the simulated weather and economy that
data sets without them borrow. Not here: the replenishment rule (`stock_simulation.py`).

What is known to be true about a simulated day (expected demand, demand before stock-outs cut it, stock-outs) goes
to a folder of its own and never to the landing zone: a forecast that could read it would not be a forecast.
Every store draws from its own random stream, so that more stores leave the first ones as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from retail_platform.sources.landing import (
    PARQUET_ROW_GROUP,
    LandingError,
    LandingFile,
    LoadReport,
    write_landing_files,
)
from retail_platform.sources.stock_simulation import Days, Flags, StockSimulation, Units, simulate_stock

Frames = dict[str, pl.DataFrame]

REGIONS = ("North", "East", "South", "West")
PAYDAYS = (1, 15)
OPENING_SECOND, TRADING_SECONDS = 8 * 3600, 14 * 3600
UNITS_PER_RECEIPT = 8
LOYALTY_SHARE = 0.6
LAUNCH_RAMP_DAYS = 14

# One random stream per purpose; the stream of a store or region also carries its number.
_ITEMS, _STORES, _WEATHER, _ECONOMY = range(4)


@dataclass(frozen=True)
class Category:
    """How the demand of a merchandise category behaves. Effects are factors on demand or exponents of it."""

    name: str
    department: str
    price: float
    weekend: float  # demand on Saturday is (1 + weekend) times that of a weekday
    season: float  # relative height of the yearly wave
    peak_day: int  # day of the year at which the wave is highest
    warmth: float  # log change of demand per 10 degrees Celsius
    holiday: float  # demand on the eve of a public holiday is (1 + holiday) times the usual
    elasticity: float  # log change of demand per log change of price, sign reversed
    lead_time_days: int
    case_packs: tuple[int, ...]


CATEGORIES = (
    Category("MILK", "DAIRY", 1.8, 0.2, 0.05, 20, 0.0, 0.1, 1.1, 1, (6, 12)),
    Category("CHEESE", "DAIRY", 3.5, 0.3, 0.1, 350, 0.0, 0.3, 1.6, 1, (6, 8)),
    Category("ICE CREAM", "FROZEN", 4.2, 0.4, 0.3, 195, 0.25, 0.2, 2.2, 2, (6, 12)),
    Category("FROZEN MEALS", "FROZEN", 3.9, 0.1, 0.1, 15, -0.05, -0.1, 2.0, 2, (8, 12)),
    Category("FRUIT", "PRODUCE", 2.4, 0.3, 0.15, 180, 0.08, 0.2, 1.4, 1, (10, 20)),
    Category("VEGETABLES", "PRODUCE", 2.1, 0.3, 0.1, 160, 0.03, 0.25, 1.3, 1, (10, 20)),
    Category("SOFT DRINKS", "GROCERY", 2.9, 0.4, 0.15, 190, 0.15, 0.4, 2.6, 3, (12, 24)),
    Category("SOUP", "GROCERY", 1.9, 0.1, 0.35, 15, -0.15, 0.0, 1.8, 3, (12, 24)),
    Category("BAKING", "GROCERY", 2.6, 0.2, 0.3, 350, -0.03, 0.5, 1.5, 3, (12, 24)),
    Category("SNACKS", "GROCERY", 3.1, 0.4, 0.05, 180, 0.02, 0.3, 2.4, 3, (12, 24)),
    Category("DETERGENT", "HOUSEHOLD", 7.9, 0.3, 0.0, 1, 0.0, -0.2, 2.8, 5, (4, 6)),
    Category("PAPER GOODS", "HOUSEHOLD", 5.9, 0.3, 0.05, 355, 0.0, 0.1, 2.5, 5, (4, 6)),
)

# Promotion type, its share of the plan, and what it adds to demand beside the lower price.
PROMOTION_TYPES = (("price cut", 0.4, 1.0), ("mailer", 0.4, 1.3), ("display", 0.2, 1.5))
DISCOUNTS = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class SimulationParameters:
    """Size and temper of the simulated retailer. Shares and rates lie between 0 and 1."""

    stores: int = 3
    items: int = 60
    days: int = 365
    start_date: date = date(2017, 1, 1)
    seed: int = 20170101
    mean_daily_units: float = 3.0  # mean demand per store, item and day before all effects
    overdispersion: float = 0.2  # variance of a day's demand = mean + overdispersion * mean ** 2; 0 is Poisson
    share_promoted: float = 0.06  # share of item weeks on promotion
    share_new: float = 0.1  # share of items that are launched during the days simulated
    share_ending: float = 0.05  # share of items that are delisted during them
    price_changes_per_year: float = 2.0
    return_rate: float = 0.003  # share of units that come back the day after; they are not sold again
    receipts: bool = False  # receipt lines; otherwise one total per store, item and day
    customers: int = 0  # loyalty members who shop with their card; needs receipts
    service_level: float = 0.95  # of the replenishment rule
    review_period_days: int = 2
    planned_days: int = 28  # promotions and calendar are planned so far beyond the last day
    country: str = "US"  # whose public holidays move demand

    def __post_init__(self) -> None:
        wrong = [
            f"{name} must be at least 1"
            for name in ("stores", "items", "days", "review_period_days")
            if getattr(self, name) < 1
        ]
        wrong += [
            f"{name} must lie between 0 and 1"
            for name in ("share_promoted", "share_new", "share_ending", "return_rate")
            if not 0 <= getattr(self, name) <= 1
        ]
        wrong += [
            f"{name} must be at least 0"
            for name in ("seed", "mean_daily_units", "overdispersion", "price_changes_per_year", "planned_days")
            if not getattr(self, name) >= 0
        ]
        if self.share_new + self.share_ending > 1:
            wrong.append("share_new and share_ending together must not exceed 1")
        if self.customers < 0 or (self.customers and not self.receipts):
            wrong.append("customers must be at least 0, and need receipts=True")
        if wrong:
            raise ValueError("simulation parameters: " + "; ".join(wrong))

    @property
    def last_date(self) -> date:
        return self.start_date + timedelta(days=self.days - 1)


@dataclass(frozen=True)
class Simulation:
    """A simulated retailer: one frame per feed as its landing files hold it, and the truth.

    `truth` has one row per store, item and listed day: expected_demand (mean of the distribution that demand was
    drawn from), demand (before stock-outs), sales, returns, arrivals, on_hand, stocked_out.
    """

    feeds: Frames
    truth: pl.DataFrame


def simulate(parameters: SimulationParameters) -> Simulation:
    """Simulate the whole retailer in memory."""
    plan = _plan(parameters)
    stores = [_simulate_store(plan, number) for number in range(parameters.stores)]
    per_store = {feed: pl.concat([frames[feed] for frames in stores]) for feed in stores[0]}
    return Simulation(truth=per_store.pop("truth"), feeds={**_chain_frames(plan), **per_store})


def write_simulation(parameters: SimulationParameters, landing: Path, truth_folder: Path) -> LoadReport:
    """Simulate store by store and write landing files; the truth goes to `truth_folder/<store>.parquet`.

    Memory holds one store at a time. Raises `LandingError` if `truth_folder` lies in the landing zone.
    """
    if truth_folder.resolve().is_relative_to(landing.resolve()):
        raise LandingError(f"the truth must not lie in the landing zone: choose a folder for it outside {landing}")
    plan = _plan(parameters)
    truth_folder.mkdir(parents=True, exist_ok=True)
    files = list(
        write_landing_files(landing, ((feed, "simulated.csv", frame) for feed, frame in _chain_frames(plan).items()))
    )
    for number in range(parameters.stores):
        files += _write_store(_simulate_store(plan, number), number, landing, truth_folder)
    return LoadReport(tuple(files), _notes(parameters, truth_folder))


def simulate_weather(regions: Sequence[str], first: date, last: date, seed: int) -> pl.DataFrame:
    """Daily weather of a temperate climate per region, as the weather feed holds it; provider is 'simulated'."""
    dates = _dates(first, (last - first).days + 1)
    return pl.concat([_weather_of_region(region, number, dates, seed) for number, region in enumerate(regions)])


def simulate_economy(first: date, last: date, seed: int) -> pl.DataFrame:
    """Monthly consumer price index and unemployment rate as they were published up to `last`.

    Begins early enough for the figures of a year before `first`; each month is published in the following one,
    the unemployment rate on the 5th and the price index on the 15th.
    """
    months = pl.date_range(first.replace(day=1, year=first.year - 1), last, "1mo", eager=True)
    generator = np.random.default_rng([seed, _ECONOMY])
    prices = 240 * np.cumprod(1 + generator.normal(0.0017, 0.001, len(months)))
    unemployment = np.clip(4.7 + np.cumsum(generator.normal(0, 0.08, len(months))), 2, 12)
    return pl.concat(
        pl.DataFrame({"period_start": months, "value": values.round(digits)}).select(
            pl.lit(name).alias("indicator"),
            "period_start",
            "value",
            pl.col("period_start").dt.offset_by("1mo").dt.offset_by(f"{day - 1}d").alias("published_on"),
            pl.lit("simulated").alias("provider"),
        )
        for name, values, digits, day in [
            ("consumer_price_index", prices, 3, 15),
            ("unemployment_rate", unemployment, 1, 5),
        ]
    ).filter(pl.col("published_on") <= last)


@dataclass(frozen=True)
class _Plan:
    """What is the same for all stores. Matrices are [items, days], those named `planned_` reach to the plan's end."""

    parameters: SimulationParameters
    items: pl.DataFrame
    category: Days  # number of the category of each item
    popularity: Units
    lead_time_days: Days
    case_pack: Days
    launch: Days
    end: Days  # first day on which the item is no longer listed
    planned_price: Units
    planned_discount: Units
    planned_promotion_type: Days  # -1 where there is none
    demand_factor: Units
    weather: pl.DataFrame

    @property
    def planned_days(self) -> int:
        return self.parameters.days + self.parameters.planned_days

    @property
    def planned_listed(self) -> Flags:
        day = np.arange(self.planned_days)
        return (day >= self.launch[:, None]) & (day < self.end[:, None])


def _plan(parameters: SimulationParameters) -> _Plan:
    generator = np.random.default_rng([parameters.seed, _ITEMS])
    days = parameters.days + parameters.planned_days
    dates = _dates(parameters.start_date, days)
    category = generator.integers(0, len(CATEGORIES), parameters.items)
    popularity = generator.lognormal(-0.72, 1.2, parameters.items)
    base_price = _per_item("price", category) * generator.lognormal(0, 0.35, parameters.items)
    launch, end = _life(parameters, days, generator)
    price = _prices(parameters, base_price, days, generator)
    discount, promotion_type = _promotions(parameters, dates, launch, end, generator)
    growth = generator.normal(0, 0.15, parameters.items)
    case_pack = np.array([generator.choice(CATEGORIES[c].case_packs) for c in category], np.int64)
    known = slice(0, parameters.days)
    paid_share = price[:, known] * (1 - discount[:, known]) / price[:, :1]
    age = np.arange(parameters.days) - launch[:, None]
    boosts = np.array([*(boost for _, _, boost in PROMOTION_TYPES), 1.0])
    factor = (
        _calendar_factor(dates[known], parameters.country)[category]
        * paid_share ** -_per_item("elasticity", category)[:, None]
        * boosts[promotion_type[:, known]]
        * np.exp(growth[:, None] * np.arange(parameters.days) / 365)
        * np.where(launch[:, None] > 0, np.clip((age + 1) / LAUNCH_RAMP_DAYS, 0, 1), 1)
    )
    return _Plan(
        parameters=parameters,
        items=_items(parameters, category, base_price, case_pack, generator),
        category=category,
        popularity=popularity,
        lead_time_days=_per_item("lead_time_days", category).astype(np.int64),
        case_pack=case_pack,
        launch=launch,
        end=end,
        planned_price=price,
        planned_discount=discount,
        planned_promotion_type=promotion_type,
        demand_factor=factor,
        weather=simulate_weather(REGIONS, parameters.start_date, parameters.last_date, parameters.seed),
    )


def _items(
    parameters: SimulationParameters, category: Days, base_price: Units, case_pack: Days, generator: np.random.Generator
) -> pl.DataFrame:
    categories = [CATEGORIES[number] for number in category]
    margin = generator.uniform(0.2, 0.4, parameters.items)
    return pl.DataFrame(
        {
            "item_id": [f"I{number + 1:05d}" for number in range(parameters.items)],
            "item_name": [f"{c.name.capitalize()} {number + 1}" for number, c in enumerate(categories)],
            "category": [c.name for c in categories],
            "department": [c.department for c in categories],
            "brand": np.where(generator.random(parameters.items) < 0.3, "Private", "National"),
            "unit_cost": (base_price * (1 - margin)).round(2),
            "case_pack": case_pack,
            "lead_time_days": [c.lead_time_days for c in categories],
        },
        schema_overrides={"case_pack": pl.Int64, "lead_time_days": pl.Int64},
    )


def _life(parameters: SimulationParameters, days: int, generator: np.random.Generator) -> tuple[Days, Days]:
    fate = generator.random(parameters.items)
    first = generator.integers(parameters.days // 10, parameters.days * 8 // 10 + 1, parameters.items)
    last = generator.integers(parameters.days // 5, parameters.days * 9 // 10 + 1, parameters.items)
    is_new = fate < parameters.share_new
    is_ending = fate >= 1 - parameters.share_ending
    return np.where(is_new, first, 0), np.where(is_ending, np.maximum(last, 1), days)


def _prices(parameters: SimulationParameters, base_price: Units, days: int, generator: np.random.Generator) -> Units:
    changes = generator.random((parameters.items, days)) < parameters.price_changes_per_year / 365
    changes[:, 0] = False
    steps = np.where(changes, generator.normal(0.02, 0.06, (parameters.items, days)), 0.0)
    prices: Units = np.maximum((base_price[:, None] * np.exp(np.cumsum(steps, axis=1))).round(2), 0.05)
    return prices


def _promotions(
    parameters: SimulationParameters, dates: pl.Series, launch: Days, end: Days, generator: np.random.Generator
) -> tuple[Units, Days]:
    """Discount share and promotion type per item and day; a promotion runs for the Monday-to-Sunday week."""
    week = _week_numbers(dates)
    shape = (parameters.items, int(week[-1]) + 1)
    planned = generator.random(shape) < parameters.share_promoted
    discount = generator.choice(DISCOUNTS, shape)
    kind = generator.choice(len(PROMOTION_TYPES), shape, p=[share for _, share, _ in PROMOTION_TYPES])
    first, last = np.searchsorted(week, np.arange(shape[1])), np.searchsorted(week, np.arange(shape[1]), "right") - 1
    planned &= (first >= launch[:, None]) & (last < end[:, None])
    return np.where(planned, discount, 0.0)[:, week], np.where(planned, kind, -1)[:, week]


def _calendar_factor(dates: pl.Series, country: str) -> Units:
    """Effect of weekday, season, public holidays and pay days on demand [categories, days]."""
    import holidays

    years = range(dates[0].year, dates[-1].year + 2)
    public = set(holidays.country_holidays(country, years=years))
    is_eve = np.array([day + timedelta(days=1) in public for day in dates])
    is_holiday = np.array([day in public for day in dates])
    is_payday = np.array([day.day in PAYDAYS for day in dates])
    weekend = np.array([0.0, 0.0, 0.0, 0.0, 0.4, 1.0, 0.7])[dates.dt.weekday().to_numpy() - 1]
    day_of_year = dates.dt.ordinal_day().to_numpy()
    return np.stack(
        [
            (1 + c.weekend * weekend)
            * (1 + c.season * np.cos(2 * np.pi * (day_of_year - c.peak_day) / 365.25))
            * np.where(is_eve, 1 + c.holiday, 1)
            * np.where(is_holiday, 0.6, 1)
            * np.where(is_payday, 1.1, 1)
            for c in CATEGORIES
        ]
    )


def _simulate_store(plan: _Plan, number: int) -> Frames:
    """The feeds of one store and its truth, from the store's own random stream."""
    parameters = plan.parameters
    generator = np.random.default_rng([parameters.seed, _STORES, number])
    region = REGIONS[number % len(REGIONS)]
    usual = (
        parameters.mean_daily_units
        * plan.popularity
        * generator.lognormal(0, 0.3)
        * generator.lognormal(0, 0.3, parameters.items)
    )
    listed = plan.planned_listed[:, : parameters.days]
    expected = usual[:, None] * plan.demand_factor * _weather_factor(plan, region)[plan.category] * listed
    demand = _draw_demand(expected, parameters.overdispersion, generator)
    stock = simulate_stock(
        demand,
        lead_time_days=plan.lead_time_days,
        review_period_days=parameters.review_period_days,
        case_pack=plan.case_pack,
        service_level=parameters.service_level,
        expected_demand=usual,
        listed=listed,
        censor=True,
    )
    returns = np.zeros_like(demand)
    returns[:, 1:] = generator.binomial(stock.sales[:, :-1].astype(np.int64), parameters.return_rate) * listed[:, 1:]
    store_id = f"S{number + 1:03d}"
    if parameters.receipts:
        lines = _receipt_lines(plan, store_id, stock.sales, returns, generator)
    else:
        lines = _daily_totals(plan, store_id, stock.sales, returns)
    on_listed_days = _days_of(plan, store_id, listed)
    return {
        "pos_sales": lines,
        "inventory": _inventory(on_listed_days, stock, listed),
        "prices": _price_frame(plan, store_id),
        "promotions": _promotion_frame(plan, store_id),
        "truth": _truth(on_listed_days, stock, listed, expected=expected, demand=demand, returns=returns),
    }


def _weather_factor(plan: _Plan, region: str) -> Units:
    weather = plan.weather.filter(pl.col("region") == region)
    warmth = weather["temperature_mean"].to_numpy() / 10 - 1.2
    rain = np.where(weather["precipitation"].to_numpy() > 5, 0.95, 1.0)
    return np.stack([np.exp(c.warmth * warmth) * rain for c in CATEGORIES])


def _draw_demand(expected: Units, overdispersion: float, generator: np.random.Generator) -> Units:
    """Negative binomial counts with the given mean, as a Poisson draw whose mean is gamma distributed."""
    if overdispersion > 1e-6:  # below it the draw is Poisson to any precision, and 1 / overdispersion overflows
        expected = generator.gamma(1 / overdispersion, expected * overdispersion)
    return generator.poisson(expected).astype(np.float64)


def _daily_totals(plan: _Plan, store_id: str, sales: Units, returns: Units) -> pl.DataFrame:
    """One row per item and day with sales or returns; quantity is net of returns."""
    day, item = np.nonzero((sales + returns).T)
    sold, returned = sales[item, day], returns[item, day]
    price, discount = plan.planned_price[item, day], plan.planned_discount[item, day]
    return pl.DataFrame(
        {
            "business_date": _dates(plan.parameters.start_date, plan.planned_days).gather(day),
            "item_id": plan.items["item_id"].gather(item),
            "quantity": sold - returned,
            "sales_amount": ((sold - returned) * price * (1 - discount)).round(2),
            "discount_amount": (sold * price * discount).round(2),
        }
    ).select("business_date", pl.lit(store_id).alias("store_id"), pl.exclude("business_date"))


def _receipt_lines(
    plan: _Plan, store_id: str, sales: Units, returns: Units, generator: np.random.Generator
) -> pl.DataFrame:
    """Receipts of about UNITS_PER_RECEIPT units; every unit goes to a random receipt of its day.

    A return is a receipt of its own, and the day's last.
    """
    units_per_day = sales.sum(axis=0)
    receipts = np.maximum(np.ceil(units_per_day / UNITS_PER_RECEIPT), 1).astype(np.int64)
    day, item = np.nonzero(sales.T)
    units = sales[item, day].astype(np.int64)
    day, item = np.repeat(day, units), np.repeat(item, units)
    receipt = (generator.random(len(day)) * receipts[day]).astype(np.int64)
    sold = pl.DataFrame({"day": day, "receipt": receipt, "item": item}).group_by("day", "receipt", "item").len("units")
    return_day, return_item = np.nonzero(returns.T)
    returned = pl.DataFrame({"day": return_day, "item": return_item}).select(
        "day",
        (pl.int_range(pl.len()).over("day") + pl.Series(receipts[return_day])).alias("receipt"),
        "item",
        (-pl.Series(returns[return_item, return_day])).alias("units"),
    )
    lines = pl.concat([sold.cast({"units": pl.Float64}), returned.cast({"units": pl.Float64})])
    lines = lines.sort("day", "receipt", "item")
    day, item = lines["day"].to_numpy(), lines["item"].to_numpy()
    price, discount = plan.planned_price[item, day], plan.planned_discount[item, day]
    day_dates = _dates(plan.parameters.start_date, plan.planned_days)
    heads = _receipt_heads(plan, lines.select("day", "receipt").unique(maintain_order=True), store_id, generator)
    return lines.join(heads, on=["day", "receipt"], how="left", maintain_order="left").select(
        day_dates.gather(day).alias("business_date"),
        pl.lit(store_id).alias("store_id"),
        plan.items["item_id"].gather(item).alias("item_id"),
        pl.col("units").alias("quantity"),
        (pl.col("units") * pl.Series(price * (1 - discount))).round(2).alias("sales_amount"),
        (pl.col("units").clip(0) * pl.Series(price * discount)).round(2).alias("discount_amount"),
        "transaction_id",
        pl.int_range(1, pl.len() + 1).over("day", "receipt").alias("line_number"),
        "sold_at",
        *(["customer_id"] if plan.parameters.customers else []),
    )


def _receipt_heads(plan: _Plan, receipts: pl.DataFrame, store_id: str, generator: np.random.Generator) -> pl.DataFrame:
    """Transaction id, time and customer of each receipt, given as day and number within the day."""
    date_of_day = _dates(plan.parameters.start_date, plan.planned_days).gather(receipts["day"])
    share_of_day = (pl.col("receipt") + pl.Series(generator.random(receipts.height))) / (
        pl.col("receipt").max().over("day") + 1
    )
    seconds = OPENING_SECOND + (share_of_day * TRADING_SECONDS).cast(pl.Int64)
    number = (pl.col("receipt") + 1).cast(pl.String).str.zfill(5)
    heads = receipts.with_columns(
        pl.concat_str(pl.lit(store_id), date_of_day.dt.strftime("%Y%m%d"), number, separator="-").alias(
            "transaction_id"
        ),
        (date_of_day.cast(pl.Datetime("us")) + pl.duration(seconds=seconds)).alias("sold_at"),
    )
    if not plan.parameters.customers:
        return heads
    member = generator.integers(1, plan.parameters.customers + 1, receipts.height)
    with_card = generator.random(receipts.height) < LOYALTY_SHARE
    member_id = pl.Series(member).cast(pl.String).str.zfill(7)
    return heads.with_columns(pl.when(pl.Series(with_card)).then("C" + member_id).alias("customer_id"))


def _days_of(plan: _Plan, store_id: str, listed: Flags) -> pl.DataFrame:
    day, item = np.nonzero(listed.T)
    return pl.DataFrame(
        {
            "date": _dates(plan.parameters.start_date, plan.parameters.days).gather(day),
            "item_id": plan.items["item_id"].gather(item),
        }
    ).select("date", pl.lit(store_id).alias("store_id"), "item_id")


def _inventory(on_listed_days: pl.DataFrame, stock: StockSimulation, listed: Flags) -> pl.DataFrame:
    return on_listed_days.rename({"date": "as_of_date"}).with_columns(
        pl.Series("on_hand", stock.on_hand.T[listed.T]), pl.Series("on_order", stock.on_order.T[listed.T])
    )


def _truth(
    on_listed_days: pl.DataFrame,
    stock: StockSimulation,
    listed: Flags,
    *,
    expected: Units,
    demand: Units,
    returns: Units,
) -> pl.DataFrame:
    columns = {
        "expected_demand": expected,
        "demand": demand,
        "sales": stock.sales,
        "returns": returns,
        "arrivals": stock.arrivals,
        "on_hand": stock.on_hand,
        "stocked_out": demand > stock.sales,
    }
    return on_listed_days.with_columns(pl.Series(name, values.T[listed.T]) for name, values in columns.items())


def _price_frame(plan: _Plan, store_id: str) -> pl.DataFrame:
    """Runs of equal price while the item is listed; the last run is open unless the item ends."""
    price, listed = plan.planned_price, plan.planned_listed
    begins = listed.copy()
    begins[:, 1:] &= ~listed[:, :-1] | (price[:, 1:] != price[:, :-1])
    item, day = np.nonzero(begins)
    first = plan.parameters.start_date
    last_listed_day = pl.Series(np.where(plan.end < plan.planned_days, plan.end - 1, -1)[item])
    day_after = pl.col("day").shift(-1).over("item") - 1
    last_day = day_after.fill_null(pl.when(last_listed_day >= 0).then(last_listed_day))
    return (
        pl.DataFrame({"item": item, "day": day, "price": price[item, day]})
        .with_columns(last_day.alias("last_day"))
        .select(
            pl.lit(store_id).alias("store_id"),
            plan.items["item_id"].gather(item).alias("item_id"),
            (pl.lit(first) + pl.duration(days="day")).alias("valid_from"),
            (pl.lit(first) + pl.duration(days="last_day")).alias("valid_to"),
            "price",
        )
    )


def _promotion_frame(plan: _Plan, store_id: str) -> pl.DataFrame:
    """One row per item and promoted week; the same plan holds in every store."""
    item, day = np.nonzero(plan.planned_promotion_type >= 0)
    dates = _dates(plan.parameters.start_date, plan.planned_days)
    kinds = pl.Series([name for name, _, _ in PROMOTION_TYPES])
    return (
        pl.DataFrame(
            {
                "item_id": plan.items["item_id"].gather(item),
                "week": _week_numbers(dates)[day],
                "date": dates.gather(day),
                "promotion_type": kinds.gather(plan.planned_promotion_type[item, day]),
                "discount_share": plan.planned_discount[item, day],
            }
        )
        .group_by("item_id", "week", "promotion_type", "discount_share", maintain_order=True)
        .agg(pl.col("date").min().alias("start_date"), pl.col("date").max().alias("end_date"))
        .select(
            pl.concat_str("start_date", pl.col("promotion_type").str.replace(" ", "-"), separator="-").alias(
                "promotion_id"
            ),
            pl.lit(store_id).alias("store_id"),
            "item_id",
            "start_date",
            "end_date",
            "promotion_type",
            "discount_share",
        )
    )


def _chain_frames(plan: _Plan) -> Frames:
    """The feeds that do not belong to one store."""
    parameters = plan.parameters
    dates = _dates(parameters.start_date, plan.planned_days)
    numbers = range(parameters.stores)
    return {
        "items": plan.items,
        "stores": pl.DataFrame(
            {
                "store_id": [f"S{number + 1:03d}" for number in numbers],
                "store_name": [f"Store {number + 1}" for number in numbers],
                "region": [REGIONS[number % len(REGIONS)] for number in numbers],
                "time_zone": ["America/New_York" for _ in numbers],
            }
        ),
        "calendar_events": dates.filter(dates.dt.day().is_in(PAYDAYS))
        .to_frame("date")
        .with_columns(event_name=pl.lit("Pay day"), event_type=pl.lit("payday"), region=pl.lit(None, pl.String)),
        "weather": plan.weather,
        "economic_indicators": simulate_economy(parameters.start_date, parameters.last_date, parameters.seed),
    }


def _write_store(frames: Frames, number: int, landing: Path, truth_folder: Path) -> Iterator[LandingFile]:
    name = f"simulated-S{number + 1:03d}.parquet"
    truth = frames.pop("truth")
    truth.write_parquet(truth_folder / f"S{number + 1:03d}.parquet", row_group_size=PARQUET_ROW_GROUP)
    yield from write_landing_files(landing, ((feed, name, frame) for feed, frame in frames.items()))


def _notes(parameters: SimulationParameters, truth_folder: Path) -> tuple[str, ...]:
    return (
        (
            f"Everything here is simulated from seed {parameters.seed}: {parameters.stores} stores, {parameters.items} "
            f"items, {parameters.start_date} to {parameters.last_date}."
        ),
        (
            f"Sales are {'receipt lines' if parameters.receipts else 'daily totals'} and are cut where stock ran out; "
            f"promotions and pay days are planned {parameters.planned_days} days beyond the last day."
        ),
        f"The true demand lies in {truth_folder}, outside the landing zone: to judge forecasts by, not to make them.",
    )


def _weather_of_region(region: str, number: int, dates: pl.Series, seed: int) -> pl.DataFrame:
    generator = np.random.default_rng([seed, _WEATHER, number])
    days = len(dates)
    # The climate of a region is a few degrees warmer or colder; a day keeps 0.7 of yesterday's deviation.
    climate = 11 + generator.normal(0, 3)
    shocks = generator.normal(0, 2.5, days)
    deviation = np.zeros(days)
    for day in range(days):
        deviation[day] = shocks[day] + 0.7 * (deviation[day - 1] if day else 0)
    season = -11 * np.cos(2 * np.pi * (dates.dt.ordinal_day().to_numpy() - 20) / 365.25)
    mean = climate + season + deviation
    rain = np.where(generator.random(days) < 0.3, generator.gamma(0.8, 8.0, days), 0.0)
    return pl.DataFrame(
        {
            "date": dates,
            "region": [region] * days,
            "temperature_mean": mean.round(1),
            "temperature_min": (mean - generator.uniform(3, 7, days)).round(1),
            "temperature_max": (mean + generator.uniform(3, 7, days)).round(1),
            "precipitation": rain.round(1),
            "provider": ["simulated"] * days,
        }
    )


def _per_item(attribute: str, category: Days) -> Units:
    return np.array([getattr(c, attribute) for c in CATEGORIES], np.float64)[category]


def _week_numbers(dates: pl.Series) -> Days:
    """Monday-to-Sunday weeks counted from that of the first date."""
    weeks: Days = (np.arange(len(dates)) + dates[0].weekday()) // 7
    return weeks


def _dates(first: date, days: int) -> pl.Series:
    return pl.date_range(first, first + timedelta(days=days - 1), eager=True)
