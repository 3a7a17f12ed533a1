"""Customer ids become pseudonyms, so that no table after the raw one holds the id.

Here: the keyed hash. Not here: where the key comes from (settings), and erasure (`governance/`).
"""

import hmac

import polars as pl

_HEX_DIGITS = 32


class CustomerKeyMissing(Exception):
    """Customer ids arrived and there is no key to make pseudonyms with."""


def pseudonym(customer_id: str, key: bytes) -> str:
    """The first 32 hexadecimal digits (128 bits) of HMAC-SHA-256 of the customer id, RFC 2104."""
    return hmac.digest(key, customer_id.encode("utf-8"), "sha256").hex()[:_HEX_DIGITS]


def pseudonyms(customer_ids: pl.Series, key: bytes | None) -> pl.Series:
    """The pseudonym of each customer id, null where there is none; each distinct id is hashed once.

    Raises `CustomerKeyMissing` where there are customer ids and no key.
    """
    distinct = customer_ids.drop_nulls().unique()
    if distinct.is_empty():
        return pl.repeat(None, len(customer_ids), dtype=pl.String, eager=True)
    if not key:
        raise CustomerKeyMissing(
            f"{len(customer_ids) - customer_ids.null_count()} rows carry a customer id and there is no key for "
            "pseudonyms; set customer_key in retail.toml or RETAIL_CUSTOMER_KEY"
        )
    hashed = pl.Series([pseudonym(customer_id, key) for customer_id in distinct], dtype=pl.String)
    return customer_ids.replace_strict(distinct, hashed, return_dtype=pl.String)
