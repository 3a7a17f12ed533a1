"""Which group of stores is computed together. Here: the rule alone; how shards run side by side is orchestration's."""

from collections.abc import Iterable
from zlib import crc32

WHOLE = "all"


def shard_names(shards: int) -> list[str]:
    """Names of all shards: 'all' where there is one, else 'shard-1-of-3', 'shard-2-of-3' ...

    The name tells the cut, since a store falls into another shard when their number changes.
    """
    return [WHOLE] if shards == 1 else [f"shard-{number}-of-{shards}" for number in range(1, shards + 1)]


def shard_of(store_ids: Iterable[str], shards: int) -> dict[str, str]:
    """Shard of each store. The same store falls into the same shard on every machine and in every run, whatever
    other stores there are.
    """
    names = shard_names(shards)
    return {store: names[crc32(store.encode()) % shards] for store in store_ids}
