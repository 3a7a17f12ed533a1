"""Every row that arrived must be found again, once."""

import polars as pl

from retail_platform.monitoring.accounting import identity_holds, identity_text, row_identity


def counts(**rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"file_id": list(rows), "rows": list(rows.values())}, schema={"file_id": pl.String, "rows": pl.UInt32}
    )


def test_balanced_accounts_hold_file_by_file() -> None:
    identity = row_identity(counts(b=10, a=5), counts(a=3, b=9), counts(a=2), counts(b=1))
    assert identity.rows() == [("a", 5, 3, 2, 0, 0), ("b", 10, 9, 0, 1, 0)]
    assert identity_holds(identity)
    assert identity_text(identity, "pos_sales") == (
        "pos_sales: 15 rows of 2 files arrived, 12 are clean, 2 rejected, 1 duplicates; every row is accounted for"
    )


def test_a_loss_in_one_file_is_not_hidden_by_a_surplus_in_another() -> None:
    identity = row_identity(counts(a=1_005, b=10), counts(a=3, b=12, c=1_000), counts(), counts())
    assert identity["difference"].to_list() == [1_002, -2, -1_000]
    assert not identity_holds(identity)
    text = identity_text(identity, "weather")
    assert "NOT accounted for: file a: 1,002 rows missing; file c: 1,000 rows too many; file b: 2 rows too many" in text


def test_many_broken_files_are_counted_and_the_worst_are_named() -> None:
    identity = row_identity(counts(**{f"f{n}": n for n in range(1, 9)}), counts(), counts(), counts())
    text = identity_text(identity, "prices")
    assert "file f8: 8 rows missing" in text
    assert "file f3" not in text
    assert "and 3 more files" in text


def test_no_files_hold() -> None:
    assert identity_holds(row_identity(counts(), counts(), counts(), counts()))
