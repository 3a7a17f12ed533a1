"""What a table promises: the machinery behind every contract.

Here: how a Pandera model becomes a `Table` with grain, owner, classification and retention, and how its
promises are read back as columns or as row rules. Not here: any particular table (the modules beside this
one), and how a contract shows in Dagster, DDL or documents (the rooms that need it derive it from `Table`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.distinct import each_run_once

Classification = Literal["public", "internal", "confidential", "personal"]
CLASSIFICATIONS: tuple[Classification, ...] = ("public", "internal", "confidential", "personal")

MASK = "***"
"""What stands in messages where a personal value would."""


class ContractBroken(Exception):
    """A frame does not keep its table's contract; the message lists every difference."""


@dataclass(frozen=True)
class RowRule:
    """A promise about one row that spans columns.

    `holds` is true where the row keeps it; null counts as kept, so that a missing optional value is judged by
    its own column's nullability alone.
    """

    name: str
    holds: pl.Expr
    message: str


@dataclass(frozen=True)
class Column:
    """One column of a table, as documents and interfaces show it."""

    name: str
    dtype: pl.DataType
    description: str
    nullable: bool
    unit: str | None
    classification: Classification
    constraints: tuple[str, ...]


def column(
    description: str,
    *,
    unit: str | None = None,
    classification: Classification = "internal",
    nullable: bool = False,
    **checks: Any,
) -> Any:
    """A Pandera field with the facts that governance needs; `checks` are Pandera's (`ge=0`, `isin=[...]`)."""
    return pa.Field(
        nullable=nullable,
        description=description,
        metadata={"unit": unit, "classification": classification},
        **checks,
    )


@dataclass(frozen=True)
class Table:
    """A contract: the Pandera model and the facts about the table as a whole.

    `grain` are the columns that together name one row. `replaced_by` names the columns whose values select the
    slice that a write replaces; empty means that the whole table is replaced, `None` that rows are appended.
    Where a table `may_have_more_columns`, columns that were admitted to the lake before stay, and are null in new rows.
    """

    name: str
    model: type[pa.DataFrameModel]
    grain: tuple[str, ...]
    owner: str
    description: str
    retention_days: int | None
    replaced_by: tuple[str, ...] | None
    rules: tuple[RowRule, ...] = ()
    tier: Literal["bronze", "silver", "gold"] = "silver"
    may_have_more_columns: bool = False
    schema: pa.DataFrameSchema = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        schema = self.model.to_schema()
        schema.strict = True
        schema.unique = list(self.grain)
        schema.checks = [*schema.checks, *(_pandera_check(rule) for rule in self.rules)]
        object.__setattr__(self, "schema", schema)

    @property
    def schema_name(self) -> str:
        return self.name.split(".")[0]

    @property
    def table_name(self) -> str:
        return self.name.split(".")[1]

    @property
    def asset_key(self) -> list[str]:
        return self.name.split(".")

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(_column(name, spec) for name, spec in self.schema.columns.items())

    @property
    def polars_schema(self) -> pl.Schema:
        return pl.Schema({c.name: c.dtype for c in self.columns})

    @property
    def classification(self) -> Classification:
        """The highest class among the columns: a table is as sensitive as its most sensitive column."""
        return max((c.classification for c in self.columns), key=CLASSIFICATIONS.index)

    @property
    def personal_columns(self) -> frozenset[str]:
        return frozenset(c.name for c in self.columns if c.classification == "personal")

    def masked(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with its personal values hidden, as messages and logs may show it."""
        return {name: MASK if name in self.personal_columns else value for name, value in row.items()}

    def empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.polars_schema)

    def validate(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` in the contract's column order, or raise `ContractBroken` with all differences.

        Takes a collected frame only: Pandera checks no values of a LazyFrame.
        """
        frame = self.arrange(frame)
        try:
            self.schema.validate(frame, lazy=True)
        except pa.errors.SchemaErrors as broken:
            raise ContractBroken(f"{self.name}: {_summary(self, broken)}") from None
        return frame

    def arrange(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` in the contract's column order, or raise `ContractBroken` where columns or types differ.

        Its values are not looked at: for frames that were made by the contract's own row rules.
        """
        differences = self.schema_differences(frame.schema)
        if differences:
            raise ContractBroken(f"{self.name}: " + "; ".join(differences))
        return frame.select(self.polars_schema.names())

    def schema_differences(self, schema: pl.Schema) -> list[str]:
        """Every way in which a frame's columns and types differ from the contract's, in words."""
        wanted = self.polars_schema
        return (
            [f"column {name} ({dtype}) is missing" for name, dtype in wanted.items() if name not in schema]
            + [f"column {name} is not in the contract" for name in schema if name not in wanted]
            + [
                f"column {name} is {schema[name]}, the contract says {dtype}"
                for name, dtype in wanted.items()
                if name in schema and schema[name] != dtype
            ]
        )

    def row_rules(self) -> list[RowRule]:
        """The contract as one expression per promise, so that a broken row can be given all its reasons at once.

        Covers nullability, Pandera's built-in column checks and the table's own rules. Grain is not a rule of
        one row and is judged where duplicates are.
        """
        rules = []
        for name, spec in self.schema.columns.items():
            if not spec.nullable:
                rules.append(RowRule(f"{name}: missing", pl.col(name).is_not_null(), f"{name} is missing"))
            rules.extend(_rule_of_check(name, check) for check in spec.checks)
        return [*rules, *self.rules]


TABLES: dict[str, Table] = {}


def table(
    name: str,
    *,
    grain: Sequence[str],
    owner: str,
    retention_days: int | None,
    replaced_by: Sequence[str] | None = (),
    rules: Sequence[RowRule] = (),
    tier: Literal["bronze", "silver", "gold"] = "silver",
) -> Callable[[type[pa.DataFrameModel]], type[pa.DataFrameModel]]:
    """Register a Pandera model as the contract of table `name`; the class docstring is its description."""

    def register(model: type[pa.DataFrameModel]) -> type[pa.DataFrameModel]:
        if name in TABLES:
            raise ValueError(f"table {name} has two contracts")
        TABLES[name] = Table(
            name=name,
            model=model,
            grain=tuple(grain),
            owner=owner,
            description=" ".join((model.__doc__ or "").split()),
            retention_days=retention_days,
            replaced_by=None if replaced_by is None else tuple(replaced_by),
            rules=tuple(rules),
            tier=tier,
        )
        return model

    return register


def _column(name: str, spec: Any) -> Column:
    facts = spec.metadata or {}
    return Column(
        name=name,
        dtype=spec.dtype.type,
        description=spec.description or "",
        nullable=spec.nullable,
        unit=facts.get("unit"),
        classification=facts.get("classification", "internal"),
        constraints=tuple(_rule_of_check(name, check).message for check in spec.checks),
    )


def _pandera_check(rule: RowRule) -> pa.Check:
    return pa.Check(
        lambda data: data.lazyframe.select(rule.holds.fill_null(value=True)), name=rule.name, error=rule.message
    )


def _rule_of_check(name: str, check: pa.Check) -> RowRule:
    value, facts = pl.col(name), check.statistics or {}
    match check.name:
        case "greater_than_or_equal_to":
            holds, words = value >= facts["min_value"], f"at least {facts['min_value']:g}"
        case "greater_than":
            holds, words = value > facts["min_value"], f"more than {facts['min_value']:g}"
        case "less_than_or_equal_to":
            holds, words = value <= facts["max_value"], f"at most {facts['max_value']:g}"
        case "less_than":
            holds, words = value < facts["max_value"], f"less than {facts['max_value']:g}"
        case "isin":
            allowed = list(facts["allowed_values"])
            holds, words = value.is_in(allowed), "one of " + ", ".join(map(str, allowed))
        case "str_matches":
            pattern = str(facts["pattern"])
            holds = each_run_once(value, lambda text: text.str.contains(pattern), pl.Boolean())
            words = f"of the form {pattern}"
        case _:
            raise ValueError(f"{name}: no row rule is derived from Pandera's check {check.name}; add it here")
    return RowRule(f"{name}: {check.name}", holds, f"{name} must be {words}")


def _summary(table: Table, broken: "pa.errors.SchemaErrors") -> str:
    cases = broken.failure_cases
    counted = cases.group_by("column", "check", maintain_order=True).agg(
        pl.len().alias("rows"), pl.col("failure_case").cast(pl.String).first().alias("example")
    )
    return "; ".join(
        f"{row['column']}: {row['check']} broken by {row['rows']} rows, for example {_example(table, **row)}"
        for row in counted.iter_rows(named=True)
    )


def _example(table: Table, *, column: str, example: str | None, **_: Any) -> str | None:
    """The value that broke a promise; of a promise about whole rows, the row. Personal values are hidden."""
    if column in table.personal_columns:
        return MASK
    if column in table.polars_schema or example is None:
        return example
    return json.dumps(table.masked(json.loads(example)))
