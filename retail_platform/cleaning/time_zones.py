"""From the clock by which a file tells time to the clock on the store's wall.

Here: the conversion. Not here: how a time is read from text (`text.py`), and what becomes of a time that cannot be
told (`reasons.py`).
"""

from collections.abc import Collection

import polars as pl

from retail_platform.settings import OFFSET_IN_TEXT


def store_time(time: pl.Expr, written_in: str | None, store_zone: pl.Expr, zones: Collection[str]) -> pl.Expr:
    """`time` on the clock of the store whose time zone is `store_zone`, one of `zones`; null where that is not known.

    `written_in` is the zone of `time`: `None` where it is the store's own, `offset` where `time` has been brought to
    UTC. A time that its zone's clock shows twice or never, when it is put back or forward, is no moment and becomes
    null; in a store of the same zone the clock may show it twice, since it stays as it is.
    """
    if written_in is None:
        return time
    source = "UTC" if written_in == OFFSET_IN_TEXT else written_in
    moment = time.dt.replace_time_zone(source, ambiguous="null", non_existent="null")
    local = [
        pl.when(store_zone == zone).then(
            time.dt.replace_time_zone(source, ambiguous="earliest", non_existent="null").dt.replace_time_zone(None)
            if zone == source
            else moment.dt.convert_time_zone(zone).dt.replace_time_zone(None)
        )
        for zone in sorted(zones)
    ]
    return pl.coalesce(local) if local else pl.lit(None, pl.Datetime("us"))
