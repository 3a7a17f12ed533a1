"""From the clean tables to the dense daily demand panel (`features.demand`).

Here: which series are forecast and why the others are not, what was sold of them on every day, and what was or is
known about each day (price, promotion, stock, calendar, weather, economy) to the end of the horizon. Not here:
statistics of the past (`features/history.py`).

What the future rows may hold: nothing that was not known on the last day. Announced prices, promotions and events
are; weather and economy are filled with what their tables hold and must not be read ahead of a forecast origin.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.shards import shard_of
from retail_platform.settings import ForecastSettings

Frame = pl.DataFrame | pl.LazyFrame

SELECTION_WINDOW_DAYS = 182
AVERAGE_PRICE_DAYS = 28
USUAL_DAYS = 28
INDICATORS = {"consumer_prices": "consumer_price_index", "unemployment": "unemployment_rate"}
EVERYWHERE = "*"
PAYDAY = "payday"

_KEY = ["series", "date"]


@dataclass(frozen=True)
class DemandPanel:
    """`frame` keeps the contract of features.demand, sorted by store, item and date.

    `series` has one row for every candidate: store_id, item_id, units, first_sale, last_sale, selling_days (of the
    last 182 days) and `reason`, which says why the series is not forecast and is null where it is.
    """

    frame: pl.DataFrame
    series: pl.DataFrame


def build_demand_panel(
    sales: Frame,
    items: pl.DataFrame,
    stores: pl.DataFrame,
    *,
    last_date: date,
    settings: ForecastSettings,
    shard: str = "all",
    prices: Frame | None = None,
    promotions: Frame | None = None,
    calendar: pl.DataFrame | None = None,
    weather: pl.DataFrame | None = None,
    economic_indicators: pl.DataFrame | None = None,
    inventory: Frame | None = None,
    late_stores: pl.DataFrame | None = None,
) -> DemandPanel:
    """Build the demand panel of one shard from frames of the clean tables.

    `last_date` is the last day whose sales are known (over all stores); later rows of `sales` are not read. Of
    `late_stores` (store_id, known_until) the units of later days are not known, and null. `selection_rule` says which
    series are forecast; not those of an excluded category or a closed store. At the levels category and department
    `item_id` is the name of the node, and a node's price and promotion are means over its items. A category of several
    departments belongs to the one that has most of its items. Where no item master is known, SKUs are forecast all the
    same; their categories are not.
    """
    if items.is_empty() and settings.item_level == "item":
        items = _items_sold(sales)
    nodes = _nodes(items, settings)
    daily = _daily_sales(sales, nodes, last_date, settings, shard)
    candidates = _judge(daily, stores, _priced_ahead(prices, nodes, last_date), last_date, settings)
    series = _chosen(candidates, nodes, stores)
    members = nodes.lazy().filter(pl.col("reason").is_null()).select("sku", "item_id")

    panel = _dense(series, last_date, settings.horizon_days)
    panel = panel.join(
        _on_series(daily.lazy(), series).select(*_KEY, "quantity", "amount", "paid_quantity"), on=_KEY, how="left"
    )
    panel = panel.sort(_KEY)
    units = pl.col("quantity").fill_null(0).clip(lower_bound=0).cast(pl.Float32)
    known_until = _known_until(series, late_stores, last_date)
    panel = panel.join(known_until, on="series", how="left", maintain_order="left").with_columns(
        units=pl.when(pl.col("date") <= pl.col("known_until")).then(units)
    )
    panel = _with_prices(panel, prices, members, series, last_date)
    panel = _with_promotions(panel, promotions, members, series)
    panel = _with_stock(panel, inventory, members, series)
    panel = panel.join(series.select("series", "store_id", "item_id", "department", "category", "region"), on="series")
    panel = _with_events(panel, calendar)
    panel = _with_weather(panel, weather)
    panel = _with_economy(panel, economic_indicators)
    contract = TABLES["features.demand"].polars_schema
    panel = panel.sort(_KEY).with_columns(shard=pl.lit(shard))
    return DemandPanel(panel.select(pl.col(name).cast(dtype) for name, dtype in contract.items()), candidates)


def selection_rule(settings: ForecastSettings) -> str:
    """Which series are forecast, in words."""
    days = f"{settings.minimum_selling_days} of its last {SELECTION_WINDOW_DAYS} days"
    announced = "" if _volume_is_asked_for(settings) else ", or has a price announced for days to come"
    return f"a series is forecast if it sold on at least {days}{announced}"


def _volume_is_asked_for(settings: ForecastSettings) -> bool:
    """One selling day asks only whether the item is on sale."""
    return settings.minimum_selling_days > 1


def _items_sold(sales: Frame) -> pl.DataFrame:
    nothing = pl.lit(None, pl.String)
    return sales.lazy().select(pl.col("item_id").unique(), category=nothing, department=nothing).collect()


def _nodes(items: pl.DataFrame, settings: ForecastSettings) -> pl.DataFrame:
    """The node that each SKU counts towards (`item_id`), or the reason why it counts towards none."""
    level = settings.item_level
    home = (
        items.group_by("category", "department")
        .len()
        .sort(pl.col("len"), "department", descending=[True, False])
        .unique("category", keep="first", maintain_order=True)
        .select("category", home="department")
    )
    category, department = pl.col("category"), pl.col("department")
    node = {"item": pl.col("sku"), "category": category, "department": department}[level]
    excluded = category.is_in(list(settings.excluded_categories)).fill_null(value=False)
    return (
        items.select("category", "department", sku="item_id")
        .join(home, on="category", how="left")
        .select(
            "sku",
            # An excluded SKU is reported under its category unless SKUs are forecast: their number says nothing more.
            item_id=pl.when(excluded & (level != "item")).then(category).otherwise(pl.coalesce(node, "sku")),
            department=pl.col("home") if level == "category" else department,
            category=pl.lit(None, pl.String) if level == "department" else category,
            reason=pl.when(excluded)
            .then(pl.format("category {} is excluded by the settings", category))
            .when(node.is_null())
            .then(pl.lit(f"the item master names no {level} for the item")),
        )
    )


def _daily_sales(
    sales: Frame, nodes: pl.DataFrame, last_date: date, settings: ForecastSettings, shard: str
) -> pl.DataFrame:
    """Sums by store, node, reason and date: quantity net of returns, and over the lines whose amount is known the
    amount and its quantity.
    """
    lines = sales.lazy().filter(pl.col("business_date") <= last_date)
    if settings.shards > 1:
        store_ids = lines.select(pl.col("store_id").unique()).collect()["store_id"].to_list()
        lines = lines.filter(
            pl.col("store_id").is_in([s for s, name in shard_of(store_ids, settings.shards).items() if name == shard])
        )
    return (
        lines.group_by("store_id", "business_date", sku="item_id")
        .agg(
            pl.col("quantity").sum(),
            amount=pl.col("sales_amount").sum(),
            paid_quantity=pl.col("quantity").filter(pl.col("sales_amount").is_not_null()).sum(),
        )
        .join(nodes.lazy().select("sku", "item_id", "reason"), on="sku", how="left")
        .with_columns(
            item_id=pl.coalesce("item_id", "sku"),
            reason=pl.when(pl.col("item_id").is_null())
            .then(pl.lit("the item master does not know the item"))
            .otherwise("reason"),
        )
        .group_by("store_id", "item_id", "reason", date="business_date")
        .agg(pl.col("quantity", "amount", "paid_quantity").sum())
        .collect()
    )


def _priced_ahead(prices: Frame | None, nodes: pl.DataFrame, last_date: date) -> pl.DataFrame:
    """Series with an item whose price is announced to hold beyond the last day: it is on sale though it may rest."""
    if prices is None:
        return pl.DataFrame(schema={"store_id": pl.String, "item_id": pl.String})
    ahead = prices.lazy().filter(pl.col("valid_to") > last_date)
    return _of_nodes(ahead, nodes.lazy().select("sku", "item_id")).select("store_id", "item_id").unique().collect()


def _judge(
    daily: pl.DataFrame, stores: pl.DataFrame, priced_ahead: pl.DataFrame, last_date: date, settings: ForecastSettings
) -> pl.DataFrame:
    """One row per candidate series with the facts of the selection rule and the reason for exclusion, or null."""
    sold = pl.col("quantity") > 0
    recent = pl.col("date") > last_date - timedelta(days=SELECTION_WINDOW_DAYS)
    few = pl.col("selling_days") < settings.minimum_selling_days
    if not _volume_is_asked_for(settings):
        few &= pl.col("priced_ahead").is_null()
    closed = pl.col("closed_on") <= last_date
    return (
        daily.group_by("store_id", "item_id", "reason")
        .agg(
            units=pl.col("quantity").sum(),
            first_sale=pl.col("date").filter(sold).min(),
            last_sale=pl.col("date").filter(sold).max(),
            selling_days=(sold & recent).sum().cast(pl.Int64),
        )
        .join(stores.select("store_id", "closed_on"), on="store_id", how="left")
        .join(priced_ahead.with_columns(priced_ahead=pl.lit(value=True)), on=["store_id", "item_id"], how="left")
        .with_columns(
            reason=pl.coalesce(
                "reason",
                pl.when(closed).then(pl.format("the store closed on {}", "closed_on")),
                pl.when(few).then(
                    pl.format(
                        f"sold on {{}} of the last {SELECTION_WINDOW_DAYS} days, "
                        f"{settings.minimum_selling_days} are asked for",
                        "selling_days",
                    )
                ),
            )
        )
        .select("store_id", "item_id", "units", "first_sale", "last_sale", "selling_days", "reason")
        .sort("store_id", "item_id", "reason")
    )


def _chosen(candidates: pl.DataFrame, nodes: pl.DataFrame, stores: pl.DataFrame) -> pl.DataFrame:
    """The series to forecast in the order of the panel, numbered, with their place in both hierarchies."""
    facts = (
        nodes.filter(pl.col("reason").is_null())
        .group_by("item_id")
        .agg(pl.col("department", "category").first(), members=pl.len())
    )
    return (
        candidates.filter(pl.col("reason").is_null())
        .select("store_id", "item_id", "first_sale")
        .join(facts, on="item_id", how="left")
        .join(stores.select("store_id", "region"), on="store_id", how="left")
        .sort("store_id", "item_id")
        .with_row_index("series")
    )


def _known_until(series: pl.DataFrame, late_stores: pl.DataFrame | None, last_date: date) -> pl.DataFrame:
    if late_stores is None:
        return series.select("series", known_until=pl.lit(last_date))
    return series.join(late_stores, on="store_id", how="left").select(
        "series", pl.col("known_until").fill_null(last_date)
    )


def _dense(series: pl.DataFrame, last_date: date, horizon_days: int) -> pl.DataFrame:
    days = pl.date_ranges("first_sale", pl.lit(last_date + timedelta(days=horizon_days)))
    return series.select("series", date=days).explode("date")


def _on_series(frame: pl.LazyFrame, series: pl.DataFrame) -> pl.DataFrame:
    """Rows of `frame` (store_id, item_id as in the panel) that belong to a chosen series, with its number."""
    keys = series.lazy().select("store_id", "item_id", "series")
    return frame.join(keys, on=["store_id", "item_id"]).collect()


def _of_nodes(frame: Frame, members: pl.LazyFrame) -> pl.LazyFrame:
    """Replace the SKU of each row by the node that it counts towards; the SKU stays as `sku`."""
    return frame.lazy().rename({"item_id": "sku"}).join(members, on="sku")


def _with_prices(
    panel: pl.DataFrame, prices: Frame | None, members: pl.LazyFrame, series: pl.DataFrame, last_date: date
) -> pl.DataFrame:
    """Add price, price_announced and listed.

    Of several prices that hold for an item on a day the one that began last counts. The feed ends somewhere: prices
    that hold on its last day are taken to hold on. Before the first price of a series nothing is known of its
    listing, so that it counts as listed.
    """
    announced = _announced_prices(panel, prices, members, series)
    first_price = announced.group_by("series").agg(first_price=pl.col("date").min())
    panel = panel.join(announced, on=_KEY, how="left").join(first_price, on="series", how="left").sort(_KEY)
    has_feed = (pl.col("date") >= pl.col("first_price")).fill_null(value=False)
    return panel.with_columns(
        price=pl.when(has_feed).then("announced").otherwise(_average_price(last_date)),
        price_announced=has_feed & pl.col("announced").is_not_null(),
        listed=~has_feed | pl.col("announced").is_not_null(),
    ).drop("announced", "first_price", "quantity", "amount", "paid_quantity")


def _announced_prices(
    panel: pl.DataFrame, prices: Frame | None, members: pl.LazyFrame, series: pl.DataFrame
) -> pl.DataFrame:
    """Mean announced price by series and day."""
    empty = pl.DataFrame(schema={"series": pl.UInt32, "date": pl.Date, "announced": pl.Float32})
    if prices is None or panel.is_empty():
        return empty
    own = _on_series(_of_nodes(prices, members), series)
    if own.is_empty():
        return empty
    end: date = panel["date"].max()  # type: ignore[assignment]
    until = pl.coalesce("valid_to", pl.col("valid_from").shift(-1).over("series", "sku") - pl.duration(days=1))
    own = own.sort("series", "sku", "valid_from").with_columns(until=until.fill_null(end))
    feed_ends = pl.col("until").max()
    return (
        own.with_columns(until=pl.when(pl.col("until") == feed_ends).then(pl.lit(end)).otherwise("until"))
        .with_columns(until=pl.min_horizontal("until", pl.lit(end)))
        .filter(pl.col("until") >= pl.col("valid_from"))
        .select("series", "sku", pl.col("price").cast(pl.Float32), date=pl.date_ranges("valid_from", "until"))
        .explode("date")
        .unique(["series", "sku", "date"], keep="last", maintain_order=True)
        .group_by(_KEY)
        .agg(announced=pl.col("price").mean())
    )


def _average_price(last_date: date) -> pl.Expr:
    """Amount paid per unit over the 28 days before, carried forward where nothing was sold or nothing is known yet."""
    amount, quantity = (
        pl.col(name).fill_null(0).shift(1).rolling_sum(AVERAGE_PRICE_DAYS, min_samples=1)
        for name in ("amount", "paid_quantity")
    )
    next_day = last_date + timedelta(days=1)
    average = pl.when((quantity > 0) & (amount >= 0) & (pl.col("date") <= next_day)).then(amount / quantity)
    return average.forward_fill().over("series").cast(pl.Float32)


def _with_promotions(
    panel: pl.DataFrame, promotions: Frame | None, members: pl.LazyFrame, series: pl.DataFrame
) -> pl.DataFrame:
    """Add on_promotion (promoted items / items of the node in the item master) and promotion_depth (sum of their
    announced cuts / the same number). Static in the past, so that no later sale can enter. An item in two promotions
    of different periods counts twice on the days that they share; both shares are capped at 1.
    """
    if promotions is None:
        return panel.with_columns(on_promotion=pl.lit(0.0), promotion_depth=pl.lit(0.0))
    period = ["store_id", "item_id", "start_date", "end_date"]
    cuts = (
        _of_nodes(promotions, members)
        .group_by(*period, "sku")
        .agg(cut=pl.col("discount_share").max().fill_null(0))
        .group_by(period)
        .agg(promoted=pl.len(), cut=pl.col("cut").sum())
    )
    start, end = panel["date"].min(), panel["date"].max()
    by_day = (
        _on_series(cuts, series)
        .with_columns(
            first=pl.max_horizontal("start_date", pl.lit(start)), last=pl.min_horizontal("end_date", pl.lit(end))
        )
        .filter(pl.col("first") <= pl.col("last"))
        .select("series", "promoted", "cut", date=pl.date_ranges("first", "last"))
        .explode("date")
        .group_by(_KEY)
        .agg(pl.col("promoted", "cut").sum())
        .join(series.select("series", "members"), on="series")
        .select(
            *_KEY,
            on_promotion=(pl.col("promoted") / pl.col("members")).clip(upper_bound=1),
            promotion_depth=(pl.col("cut") / pl.col("members")).clip(upper_bound=1),
        )
    )
    return panel.join(by_day, on=_KEY, how="left").with_columns(pl.col("on_promotion", "promotion_depth").fill_null(0))


def _with_stock(
    panel: pl.DataFrame, inventory: Frame | None, members: pl.LazyFrame, series: pl.DataFrame
) -> pl.DataFrame:
    """Add in_stock, by the stock of the node that was left at the close of each day (`tells_demand`). Inventory may
    name SKUs or nodes; a node's own figure counts beside those of its SKUs.
    """
    if inventory is None:
        return panel.with_columns(in_stock=pl.lit(value=True))
    stock = (
        inventory.lazy()
        .rename({"item_id": "sku"})
        .join(members, on="sku", how="left")
        .with_columns(item_id=pl.coalesce("item_id", "sku"))
        .group_by("store_id", "item_id", date="as_of_date")
        .agg(on_hand=pl.col("on_hand").clip(lower_bound=0).sum())
    )
    own = _on_series(stock, series).select(*_KEY, "on_hand")
    left = (pl.col("on_hand") > 0).fill_null(value=True)
    panel = panel.join(own, on=_KEY, how="left", maintain_order="left")
    return panel.with_columns(in_stock=tells_demand(left).over("series", order_by="date")).drop("on_hand")


def tells_demand(left: pl.Expr) -> pl.Expr:
    """Whether the `units` of a day tell its demand, in one series in the order of its days: stock was `left` at the
    close, or the item sold until then no less than on the mean of the days before that ended with stock.

    A day that ran out sold less than was wanted, nobody knows by how much. Taken for the demand it pulls forecasts
    down, and so does leaving all of them out, since busy days run out first; one that sold much tells of a busy day.
    """
    usual = pl.when(left).then(pl.col("units")).rolling_mean(USUAL_DAYS, min_samples=1).shift(1)
    return left | (pl.col("units") > 0) & (pl.col("units") >= usual).fill_null(value=True)


def _with_events(panel: pl.DataFrame, calendar: pl.DataFrame | None) -> pl.DataFrame:
    """Add the main event of the day and whether it is a payday. Of several events the region's own comes before a
    general one, then a national one before the rest, then the alphabet decides.
    """
    if calendar is None:
        nothing = pl.lit(None, pl.String)
        return panel.with_columns(event_name=nothing, event_type=nothing, is_payday=pl.lit(value=False))
    regions = panel.select(pl.col("region").unique())
    events = pl.concat(
        [
            calendar.filter(pl.col("region") != EVERYWHERE).with_columns(own=pl.lit(value=True)),
            calendar.filter(pl.col("region") == EVERYWHERE)
            .drop("region")
            .join(regions, how="cross")
            .with_columns(own=pl.lit(value=False)),
        ],
        how="diagonal",
    ).with_columns(kind=pl.col("event_type").str.to_lowercase())
    is_payday = (pl.col("kind") == PAYDAY).fill_null(value=False)
    main = (
        events.filter(~is_payday)
        .sort(~pl.col("own"), pl.col("kind").ne_missing("national"), "event_name")
        .unique(["region", "date"], keep="first", maintain_order=True)
        .select("region", "date", "event_name", "event_type")
    )
    paydays = events.filter(is_payday).select("region", "date", is_payday=pl.lit(value=True)).unique()
    return (
        panel.join(main, on=["region", "date"], how="left", nulls_equal=True)
        .join(paydays, on=["region", "date"], how="left", nulls_equal=True)
        .with_columns(pl.col("is_payday").fill_null(value=False))
    )


def _with_weather(panel: pl.DataFrame, weather: pl.DataFrame | None) -> pl.DataFrame:
    if weather is None:
        nothing = pl.lit(None, pl.Float32)
        return panel.with_columns(temperature=nothing, precipitation=nothing)
    # The latest revision counts; a row that does not say since when it was known is older than any that does.
    latest = weather.sort("published_on", nulls_last=False).unique(["region", "date"], keep="last", maintain_order=True)
    measured = latest.select("region", "date", "precipitation", temperature="temperature_mean")
    return panel.join(measured, on=["region", "date"], how="left")


def _with_economy(panel: pl.DataFrame, indicators: pl.DataFrame | None) -> pl.DataFrame:
    """Add each indicator as it was known on the day: the figure of the latest period published by then, in its latest
    revision by then.
    """
    days = panel.select(pl.col("date").unique().sort())
    for column, indicator in INDICATORS.items():
        if indicators is None:
            days = days.with_columns(pl.lit(None, pl.Float32).alias(column))
            continue
        vintages = (
            indicators.filter(pl.col("indicator") == indicator)
            .sort("published_on", "period_start")
            .filter(pl.col("period_start") >= pl.col("period_start").cum_max())
            .select(pl.col("value").alias(column), date="published_on")
        )
        days = days.join_asof(vintages, on="date")
    return panel.join(days, on="date", how="left")
