"""The declared lineage must be whole, true to the contracts and free of circles."""

from graphlib import TopologicalSorter

import pytest

from retail_platform.contracts import FEEDS, TABLES
from retail_platform.governance.lineage import (
    COLUMN_LINEAGE,
    RUN_FACTS,
    Edge,
    UnknownNameError,
    column_lineage,
    downstream,
    upstream,
)

DERIVED = [name for name in TABLES if not name.startswith("raw.")]


def sources_of(edges: list[Edge]) -> set[str]:
    return {edge.source for edge in edges}


def targets_of(edges: list[Edge]) -> set[str]:
    return {edge.target for edge in edges}


@pytest.mark.parametrize("table", DERIVED)
def test_every_column_has_lineage_or_a_reason_to_have_none(table: str) -> None:
    declared = {column for column, sources in COLUMN_LINEAGE.get(table, {}).items() if sources}
    facts = RUN_FACTS.get(table, {})
    assert declared | set(facts) == set(TABLES[table].polars_schema)
    assert not declared & set(facts)
    assert all(facts.values())


def test_only_existing_tables_are_declared() -> None:
    assert {*COLUMN_LINEAGE, *RUN_FACTS} <= set(DERIVED)


def test_every_source_is_a_column_of_an_existing_table() -> None:
    sources = {source for columns in COLUMN_LINEAGE.values() for found in columns.values() for source in found}
    assert not [s for s in sources if s.table not in TABLES or s.column not in TABLES[s.table].polars_schema]


def test_no_table_is_made_from_itself_even_by_a_detour() -> None:
    graph = {
        table: {source.table for sources in columns.values() for source in sources}
        for table, columns in COLUMN_LINEAGE.items()
    }
    TopologicalSorter(graph).prepare()


def test_a_column_names_each_source_once() -> None:
    repeated = [
        f"{table}.{column}"
        for table, columns in COLUMN_LINEAGE.items()
        for column, sources in columns.items()
        if len({(s.table, s.column) for s in sources}) < len(sources)
    ]
    assert not repeated


def test_every_clean_table_traces_each_row_to_its_file() -> None:
    for feed in FEEDS.values():
        lineage = column_lineage(feed.clean_table)
        assert lineage["source_file_id"] == ((feed.raw_table, "file_id"),)
        assert lineage["source_row_number"] == ((feed.raw_table, "row_number"),)


def test_personal_data_leaves_raw_only_masked_or_as_personal() -> None:
    personal = [(t.name, c.name) for t in TABLES.values() for c in t.columns if c.classification == "personal"]
    assert ("raw.pos_sales", "customer_id") in personal
    for table, column in personal:
        for edge in downstream(f"{table}.{column}"):
            if edge.source == f"{table}.{column}" and edge.kind == "DIRECT":
                target_table, _, target = edge.target.rpartition(".")
                assert (target_table, target) in personal, edge
    assert Edge("raw.pos_sales.customer_id", "clean.sales.customer_pseudonym", "MASKED") in downstream(
        "raw.pos_sales.customer_id"
    )


def test_an_order_proposal_is_followed_back_to_every_feed() -> None:
    found = sources_of(upstream("forecast.inventory_requirements.order_quantity"))
    assert {"forecast.demand.q95", "features.demand.units", "clean.sales.quantity", "raw.pos_sales.quantity"} <= found
    assert {feed.raw_table for feed in FEEDS.values()} <= sources_of(upstream("forecast.inventory_requirements"))


def test_no_customer_reaches_a_forecast() -> None:
    assert targets_of(downstream("clean.sales.customer_pseudonym")) == set()


def test_walks_up_and_down_are_each_other_reversed() -> None:
    for name in ("clean.weather", "clean.prices.valid_to", "features.demand.units"):
        tables_or_columns = targets_of(downstream(name))
        assert tables_or_columns
        assert all(name in sources_of(upstream(below)) for below in tables_or_columns)


@pytest.mark.parametrize("name", ["forecast.demand", "forecast.demand.mean"])
def test_a_walk_shows_every_edge_once_and_in_the_order_in_which_it_is_reached(name: str) -> None:
    edges = upstream(name)
    assert len(edges) == len(set(edges))
    reached = [name]
    for edge in edges:
        assert edge.target in reached
        reached.append(edge.source)


def test_raw_tables_begin_the_lineage() -> None:
    assert upstream("raw.pos_sales") == []
    assert column_lineage("raw.pos_sales") == {}


def test_a_walk_between_tables_shows_the_strongest_kind() -> None:
    assert Edge("raw.pos_sales", "clean.sales", "DIRECT") in upstream("clean.sales")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clean.sale", "did you mean clean.sales?"),
        ("clean.sales.quantities", "did you mean clean.sales.quantity?"),
        ("quantity", "known are"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    for walk in (upstream, downstream):
        with pytest.raises(UnknownNameError) as unknown:
            walk(name)
        assert hint in str(unknown.value)


def test_the_forecast_is_made_from_every_column_that_a_model_sees() -> None:
    from retail_platform.forecasting.training_set import FEATURES

    seen = set(column_lineage("forecast.demand")["mean"])
    history, demand = (TABLES[name].polars_schema for name in ("features.demand_history", "features.demand"))
    assert {("features.demand_history", name) for name in FEATURES if name in history and name not in demand} <= seen
    assert {name for name in FEATURES if name in demand} <= {column for _, column in seen}
