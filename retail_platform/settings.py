"""Every setting of the platform: one typed, frozen tree, read from `retail.toml` and `RETAIL_*` variables.

Here: names, types, defaults and where they are read from. Not here: any behaviour that depends on them; rooms
get the part that concerns them passed in.
"""

import os
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin
from urllib.parse import parse_qs, urlsplit

import polars as pl
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from retail_platform.contracts.feeds import FEEDS, Feed, problems_of_extra_columns
from retail_platform.contracts.time_zones import is_time_zone

ENVIRONMENT_PREFIX = "RETAIL_"
OBJECT_STORAGE = "s3://"

_S3_CREDENTIALS = {
    "s3_access_key": "AWS_ACCESS_KEY_ID",
    "s3_secret_key": "AWS_SECRET_ACCESS_KEY",
    "s3_session_token": "AWS_SESSION_TOKEN",
}
"""Setting -> variable that counts where RETAIL_* does not give it."""

Share = Annotated[float, Field(gt=0, lt=1)]

OFFSET_IN_TEXT = "offset"
"""The time zone of a feed whose times each tell their own, as 2017-03-01T18:22:05+01:00 does."""

_DATE_PARTS = (("%Y", "%y"), ("%m", "%-m", "%b"), ("%d", "%-d"))
_TIME_PARTS = (("%H", "%-H", "%I"), ("%M",))
_FURTHER_PARTS = (("%S",), ("%p",))


class SettingsError(Exception):
    """A setting is unknown or unusable; the message names each with its place and remedy."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeedSettings(_Settings):
    """How the files of one feed are written, where that differs from `docs/feeds.md`."""

    columns: dict[str, str] = Field(
        default={}, description="Column of the contract -> column name in the files, where they differ"
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    reject_budget: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of rejected rows above which a day is not written and the run fails",
    )
    tolerated_rejects: int = Field(
        default=20, ge=0, description="So many rejected rows of a day never exceed the budget, whatever their share"
    )
    replaces: Literal["row", "store_day"] = Field(
        default="row",
        description="What a later file replaces: rows of the same key, or, where files are complete per store and day, "
        "all earlier rows of the stores and days that it has",
    )
    encoding: str = Field(default="utf-8", description="Of CSV and JSON Lines, such as utf-16, latin-1 or cp1252")
    extra_columns: dict[str, Literal["text"]] = Field(
        default={}, description="Columns beyond docs/feeds.md that the raw table takes in as well, as text"
    )
    decimal: Literal[".", ","] = Field(default=".", description="Decimal sign of numbers")
    thousands: Literal["", ".", ",", " ", "'", "\u2019", "\u00a0", "\u202f"] = Field(
        default="", description="Sign that may stand between groups of three digits"
    )
    date_format: str | None = Field(
        default=None, description="How dates are written, such as %d.%m.%Y; ISO where not set"
    )
    datetime_format: str | None = Field(
        default=None, description="How dates with a time are written, such as %d.%m.%Y %H:%M:%S; ISO where not set"
    )
    time_zone: str | None = Field(
        default=None,
        description="Zone of the times: an IANA name such as UTC, or 'offset' where each time ends with its offset; "
        "local to the store where not set",
    )
    business_date_from: str | None = Field(
        default=None, description="Column of times whose local day is the business day, where the files name no day"
    )

    @model_validator(mode="after")
    def _distinct_signs(self) -> "FeedSettings":
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; they must differ")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            b"".decode(encoding)
        except LookupError:
            raise ValueError(
                f"there is no text encoding {encoding}; known are utf-8, utf-16, latin-1, cp1252 ..."
            ) from None
        return encoding

    @field_validator("date_format")
    @classmethod
    def _whole_date(cls, value: str | None) -> str | None:
        return value if value is None else _checked_format(value, _DATE_PARTS)

    @field_validator("datetime_format")
    @classmethod
    def _whole_time(cls, value: str | None) -> str | None:
        return value if value is None else _checked_format(value, _DATE_PARTS + _TIME_PARTS)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and value != OFFSET_IN_TEXT and not is_time_zone(value):
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin, nor 'offset'")
        return value


def _checked_format(value: str, parts: tuple[tuple[str, ...], ...]) -> str:
    """Refuse a format that leaves out a part of the date or time, or names one twice or that is not known."""
    directives = re.findall(r"%-?.?", value)
    known = [name for part in (*_DATE_PARTS, *_TIME_PARTS, *_FURTHER_PARTS) for name in part]
    wrong = [f"{name} is not known; known are {', '.join(known)}" for name in directives if name not in known]
    counts = [(part, sum(directives.count(name) for name in part)) for part in parts]
    wrong += [f"{' or '.join(part)} must stand in it once" for part, count in counts if count != 1]
    if ("%I" in directives) != ("%p" in directives):
        wrong.append("%I and %p belong together")
    if wrong:
        raise ValueError(f"{value!r}: {'; '.join(wrong)}")
    return value


class IntakeSettings(_Settings):
    """What a landing file may be, so that no file harms the others. A file beyond a limit is refused."""

    quiet_seconds: float = Field(default=2, ge=0, description="A file written to since then is left until it is quiet")
    max_file_bytes: int = Field(default=50 * 1024**3, ge=1)
    max_expanded_bytes: int = Field(default=100 * 1024**3, ge=1, description="Of what a file holds, unpacked")
    max_expansion_ratio: float = Field(default=300, ge=1, description="Unpacked to packed, beyond the first 64 MB")
    max_rows: int = Field(default=1_000_000_000, ge=1)
    max_columns: int = Field(default=10_000, ge=1)
    max_memory_bytes: int = Field(default=4 * 1024**3, ge=256 * 1024**2, description="Of the process that reads files")
    max_seconds: float = Field(default=3600, gt=0, description="For reading one file")


class LakeSettings(_Settings):
    """Where the tables' files lie, how long their past is kept, and the guards of lake writes."""

    data: str = Field(
        default="",
        description="Whole path or s3://bucket/prefix of the tables' files; lake/ of the home where empty",
    )
    s3_endpoint: str = Field(
        default="", description="http(s)://host:port of an S3-compatible storage; Amazon's own where empty"
    )
    s3_region: str = "us-east-1"
    s3_url_style: Literal["vhost", "path"] = "vhost"
    snapshot_days: int = Field(
        default=30, ge=1, description="How long an earlier state of the lake can be read; longer than any one read"
    )
    model_snapshot_days: int = Field(
        default=365, ge=0, description="How long the state that a champion was trained on can be read"
    )
    file_guard_hours: float = Field(
        default=24, ge=0, description="Maintenance removes no file that was in use less long ago: the longest read"
    )
    lock_timeout_seconds: float = Field(default=300, gt=0, description="How long a writer waits for its table")
    commit_attempts: int = Field(default=30, ge=1, description="How often a conflicting commit is tried")
    memory_limit: str = Field(default="4GB", description="DuckDB's memory limit per connection")
    threads: int = Field(default=2, ge=1)

    @field_validator("data")
    @classmethod
    def _folder_or_bucket(cls, data: str) -> str:
        if data and not data.startswith((OBJECT_STORAGE, "/")):
            raise ValueError("data must be an absolute folder or s3://bucket/prefix")
        if data.startswith(OBJECT_STORAGE) and not data.removeprefix(OBJECT_STORAGE).strip("/"):
            raise ValueError("data names no bucket; it has the form s3://bucket/prefix")
        return data.rstrip("/")

    @field_validator("s3_endpoint")
    @classmethod
    def _scheme(cls, endpoint: str) -> str:
        if endpoint and not re.fullmatch(r"https?://[^/]+/?", endpoint):
            raise ValueError("s3_endpoint has the form https://host:port")
        return endpoint.rstrip("/")


class ForecastSettings(_Settings):
    """What is forecast, how far, and from which series."""

    item_level: Literal["item", "category", "department"] = Field(
        default="item", description="Level of the item hierarchy at which demand is forecast"
    )
    horizon_days: int = Field(default=28, ge=1, le=366)
    horizon_blocks: tuple[int, ...] = Field(
        default=(7, 14, 21, 28), description="One mean model per block; each value is the last horizon of its block"
    )
    minimum_selling_days: int = Field(
        default=1,
        ge=1,
        description="A series is forecast if it sold on at least so many of its last 182 days; at 1 also where a price "
        "is announced for days to come",
    )
    excluded_categories: tuple[str, ...] = Field(
        default=(), description="Categories that are not merchandise, such as fuel or coupons"
    )
    training_days: int = Field(default=730, ge=56, description="Longest training window")
    cutoffs: int = Field(default=5, ge=3, description="Rolling origins of the backtest")
    models: tuple[Literal["lightgbm", "seasonal_naive", "moving_average", "auto_ets", "theta"], ...] = Field(
        default=("lightgbm", "seasonal_naive", "moving_average"),
        description="Models that the backtest compares; auto_ets and theta need the extra statistics, and minutes for "
        "thousands of series",
    )
    shards: int = Field(default=1, ge=1, description="Groups of stores that are computed apart")
    training_rows: int = Field(
        default=400_000, ge=1_000, description="Rows that one mean model learns from; of more a random sample is taken"
    )
    half_life_days: int = Field(
        default=730, ge=1, description="A day this much older counts half as much in the training"
    )
    objective: Literal["auto", "tweedie", "poisson", "l2", "log_l1"] = Field(
        default="auto",
        description="What the mean model minimises; auto tries them all before each backtest, and takes tweedie where "
        "none is clearly better or the panel is short",
    )
    trees: int = Field(default=300, ge=1, description="Most trees of one mean model")
    early_stopping: bool = Field(
        default=True,
        description="Stop at the number of trees that did best on two windows before all that a backtest scores; where "
        "the panel is too short for these all trees are grown",
    )
    leaves: int = Field(default=63, ge=2)
    learning_rate: float = Field(default=0.06, gt=0, le=1)
    tweedie_variance_power: float = Field(
        default=1.1, ge=1, lt=2, description="Of the objective tweedie; auto tries 1.5 beside it"
    )
    threads: int = Field(default=2, ge=1)
    seed: int = 20170101
    totals_share: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="How far forecasts of series are aligned to those of the store's categories: 1 makes them add up",
    )

    @field_validator("horizon_blocks")
    @classmethod
    def _ascending(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if not blocks or list(blocks) != sorted(set(blocks)) or blocks[0] < 1:
            raise ValueError("horizon_blocks must be ascending positive days, such as [7, 14, 28]")
        return blocks

    @field_validator("models")
    @classmethod
    def _with_the_judged_and_the_judge(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        missing = [name for name in ("lightgbm", "seasonal_naive") if name not in models]
        if missing:
            raise ValueError(f"forecast.models lacks {', '.join(missing)}: what is published must beat seasonal naive")
        return models


class ChampionSettings(_Settings):
    """When a challenger takes the champion's place."""

    standard_errors: float = Field(
        default=2.0, ge=0, description="A challenger's WAPE must be lower by more than so many standard errors"
    )
    guarded: tuple[Literal["horizon", "department", "store"], ...] = Field(
        default=("horizon", "department"), description="No segment of these kinds may get worse than tolerated"
    )
    segment_tolerance: float = Field(
        default=0.05, ge=0, description="Share of its WAPE by which a guarded segment may get worse"
    )
    bias_tolerance: float = Field(
        default=0.02, ge=0, description="Share of the units by which the size of the bias may grow"
    )


class ReplenishmentSettings(_Settings):
    """How much stock is wanted, where the item master does not say otherwise."""

    service_level: Share = 0.95
    lead_time_days: int = Field(default=3, ge=0)
    review_period_days: int = Field(default=1, ge=1)
    case_pack: int = Field(default=1, ge=1)
    stock_valid_days: int = Field(
        default=1, ge=0, description="Stock counted longer before the forecast origin than this counts as not known"
    )
    demand_autocorrelation: float = Field(
        default=0.2, ge=0, lt=1, description="Correlation of the forecast errors of successive days"
    )
    sample_paths: int = Field(default=500, ge=50)
    seed: int = 20170101


class DriftSettings(_Settings):
    """When the present counts as different from the past."""

    window_days: int = Field(default=28, ge=7, description="Current window, and each reference window")
    distance_threshold: float = Field(default=0.15, gt=0)
    share_of_columns: Share = Field(default=0.5, description="Share of drifted columns at which the table has drifted")
    persistence: int = Field(default=2, ge=1, description="Measurements in a row that must agree before retraining")
    sample_rows: int = Field(default=20_000, ge=100)
    seed: int = 20170101


_SECRETS = ("password", "passwd", "api_key", "apikey", "token", "secret")
_SOURCE_NAME = r"[a-z][a-z0-9_]*"


def _name_of_a_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError("an environment variable has capital letters, digits and _ only")
    if name.startswith(ENVIRONMENT_PREFIX):
        raise ValueError(f"variables that begin with {ENVIRONMENT_PREFIX} are settings; give the secret another name")
    return name


VariableName = Annotated[str, AfterValidator(_name_of_a_variable)]


class _Source(_Settings):
    """What every source has. Secrets are in environment variables, which the settings name."""

    interval_minutes: int = Field(default=60, ge=1, description="How often the sensor asks for what is new")
    required: bool = Field(
        default=False, description="Whether a run fails where the source does not answer; else the last data is used"
    )
    attempts: int = Field(default=5, ge=1, description="How often a request or extract is tried")
    first_wait_seconds: float = Field(default=1, gt=0, description="Wait before the second attempt; doubles, jittered")
    longest_wait_seconds: float = Field(default=60, gt=0)
    timeout_seconds: float = Field(default=60, gt=0, description="How long an answer may be silent")

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, values: Any) -> Any:
        given = [name for name in values if name.lower() in _SECRETS] if isinstance(values, dict) else []
        if given:
            raise ValueError(
                f"{', '.join(given)} does not belong into the settings; put it into an environment variable and name "
                "that variable here, as password_variable or api_key_variable"
            )
        return values


class PostgresSource(_Source):
    """A table or query of a PostgreSQL database, from which rows are taken by a column that grows."""

    kind: Literal["postgres"]
    feed: str
    address: str = Field(description="postgresql://user@host:port/database, without a password")
    password_variable: VariableName | None = Field(default=None, description="Environment variable with the password")
    table: str | None = Field(default=None, description="Table or view, as schema.name")
    query: str | None = Field(default=None, description="SELECT to use instead of a table")
    cursor: str = Field(description="Column that grows with new and changed rows: a time, a date or a whole number")
    look_back: float = Field(
        default=3, ge=0, description="How far behind its position each extract reads again: days, or steps of a number"
    )
    columns: dict[str, str] = Field(
        default={}, description="Column of the contract -> column of the source, where they differ"
    )
    rows_per_file: int = Field(default=500_000, ge=1)
    required: bool = True

    @field_validator("address")
    @classmethod
    def _without_password(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("address must be of the form postgresql://user@host:port/database")
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError(
                "a password does not belong into the settings; take it out of the address, put it into an environment "
                "variable and name that variable as password_variable"
            )
        return address

    def in_words(self) -> str:
        """What is read from where."""
        parts = urlsplit(self.address)
        return (
            f"{self.table or 'a query'} of the PostgreSQL database {parts.hostname or ''}{parts.path} by {self.cursor}"
        )

    @model_validator(mode="after")
    def _usable(self) -> "PostgresSource":
        wrong = [] if self.feed in FEEDS else [f"unknown feed {self.feed}; known are {', '.join(FEEDS)}"]
        if self.feed in FEEDS:
            known = FEEDS[self.feed].column_names
            wrong += [
                f"feed {self.feed} has no column {c}; it has {', '.join(known)}" for c in self.columns if c not in known
            ]
        if (self.table is None) == (self.query is None):
            wrong.append("give either table or query")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Place(_Settings):
    """Where the weather of a region is taken, and by which clock its days begin."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    time_zone: str = Field(description="IANA time zone, such as America/Chicago")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if not is_time_zone(value):
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin")
        return value


class _HttpSource(_Source):
    @field_validator("archive_url", "forecast_url", "url", check_fields=False)
    @classmethod
    def _encrypted(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(f"{url} must begin with https://")
        return url.rstrip("/")


class OpenMeteoSource(_HttpSource):
    """Daily weather from a service with the interface of Open-Meteo: archive, and forecast for the days after it."""

    kind: Literal["open_meteo"]
    feed: Literal["weather"] = "weather"
    regions: dict[str, Place] = Field(min_length=1, description="Region, as in the store master -> place")
    start: date = Field(description="First day wanted")
    forecast_days: int = Field(default=16, ge=1, le=16)
    settled_after_days: int = Field(default=7, ge=1, description="Age from which a day is taken from the archive")
    temperature_unit: Literal["celsius", "fahrenheit"] = Field(
        default="celsius", description="Unit asked for, which the answer must state; Fahrenheit is converted"
    )
    precipitation_unit: Literal["mm", "inch"] = Field(
        default="mm", description="Unit asked for, which the answer must state; inches are converted"
    )
    api_key_variable: VariableName | None = Field(default=None, description="Environment variable with the key")
    archive_url: str = "https://archive-api.open-meteo.com/v1/archive"
    forecast_url: str = "https://api.open-meteo.com/v1/forecast"

    def in_words(self) -> str:
        """What is read from where."""
        return f"weather of {', '.join(self.regions)} from {self.archive_url} and {self.forecast_url}"


class FredSeries(_Settings):
    """A series of figures, and the unit that it must be stated in: a rebased index is another figure."""

    id: str = Field(description="Id at the publisher, such as CPIAUCSL")
    unit: str = Field(description="Unit that the publisher must state, such as 'Index 1982-1984=100'")


class FredSource(_HttpSource):
    """Economic figures with all their revisions, from a service with the interface of FRED."""

    kind: Literal["fred"]
    feed: Literal["economic_indicators"] = "economic_indicators"
    series: dict[str, FredSeries] = Field(min_length=1, description="Indicator -> series")
    start: date = Field(default=date(2010, 1, 1), description="First period wanted")
    api_key_variable: VariableName = Field(description="Environment variable with the key")
    page_rows: int = Field(default=100_000, ge=1, le=100_000)
    url: str = "https://api.stlouisfed.org/fred"

    def in_words(self) -> str:
        """What is read from where."""
        return f"{', '.join(series.id for series in self.series.values())} from {self.url}"


Source = Annotated[PostgresSource | OpenMeteoSource | FredSource, Field(discriminator="kind")]


class Settings(_Settings):
    """The whole configuration. `home` holds everything that the platform writes."""

    home: Path = Path(".retail")
    catalog: str = Field(default="sqlite", description="'sqlite', or postgres://... of a shared catalog")
    start_date: date = Field(default=date(2010, 1, 1), description="First business day that is accepted")
    country: str = Field(default="US", description="Country of the public holidays (ISO 3166)")
    customer_key: SecretStr | None = Field(
        default=None, description="Key of the customer pseudonyms; generated into the home folder where not set"
    )
    user: str | None = Field(
        default=None, min_length=1, description="Who decides, for the audit log; the login name where not set"
    )
    s3_access_key: SecretStr | None = Field(default=None, description="From the environment only; AWS_* count as well")
    s3_secret_key: SecretStr | None = None
    s3_session_token: SecretStr | None = None
    feeds: dict[str, FeedSettings] = {}
    sources: dict[str, Source] = Field(default={}, description="Systems that are asked for data, by a name of yours")
    intake: IntakeSettings = IntakeSettings()
    lake: LakeSettings = LakeSettings()
    forecast: ForecastSettings = ForecastSettings()
    champion: ChampionSettings = ChampionSettings()
    replenishment: ReplenishmentSettings = ReplenishmentSettings()
    drift: DriftSettings = DriftSettings()

    @field_validator("catalog")
    @classmethod
    def _known_catalog(cls, catalog: str) -> str:
        if catalog != "sqlite" and not catalog.startswith(("postgres://", "postgresql://")):
            raise ValueError("catalog must be 'sqlite' or a postgres:// address")
        return catalog

    @field_validator("feeds")
    @classmethod
    def _known_feeds(cls, feeds: dict[str, FeedSettings]) -> dict[str, FeedSettings]:
        wrong = [f"unknown feed {name}; known are {', '.join(FEEDS)}" for name in feeds if name not in FEEDS]
        for name, feed in feeds.items():
            known = [*FEEDS[name].column_names, *feed.extra_columns] if name in FEEDS else list(feed.columns)
            wrong += [f"feed {name}: {problem}" for problem in problems_of_extra_columns(name, feed.extra_columns)]
            extra = [c for c in feed.columns if c not in known]
            wrong += [f"feed {name} has no column {c}; it has {', '.join(known)}" for c in extra]
            if feed.replaces == "store_day" and name in FEEDS and not _has_store_days(FEEDS[name]):
                wrong.append(f"feed {name} has no store and day that a file could replace; leave out replaces")
            if feed.business_date_from and name in FEEDS:
                wrong += _no_source_of_days(FEEDS[name], feed.business_date_from)
        if wrong:
            raise ValueError("; ".join(wrong))
        return feeds

    @field_validator("sources")
    @classmethod
    def _plain_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        wrong = [name for name in sources if not re.fullmatch(_SOURCE_NAME, name)]
        if wrong:
            raise ValueError(f"a source's name has small letters, digits and _ only: {', '.join(wrong)}")
        return sources

    @model_validator(mode="after")
    def _forms_that_extracts_have(self) -> "Settings":
        """Extracts are written in ISO forms; read by another form, 1.234 could be a thousand."""
        forms = ("decimal", "thousands", "date_format", "datetime_format")
        wrong = []
        for feed in dict.fromkeys(source.feed for source in self.sources.values()):
            other = [form for form in forms if getattr(self.feed(feed), form) != getattr(FeedSettings(), form)]
            if other:
                wrong.append(
                    f"feed {feed} has a source, whose extracts are in ISO forms; leave out {', '.join(other)} of "
                    f"feeds.{feed}"
                )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _extracts_are_not_complete(self) -> "Settings":
        wrong = [name for name, feed in self.feeds.items() if feed.replaces == "store_day" and self.sources_of(name)]
        if wrong:
            raise ValueError(
                f"feed {wrong[0]} has a source, whose extracts hold only what is new and no whole days; leave out "
                f"replaces of feeds.{wrong[0]}"
            )
        return self

    def form_of_extracts(self, feed: str) -> FeedSettings:
        """How extracts of a feed are written: under the contract's own names."""
        return self.feed(feed).model_copy(update={"columns": {}})

    def sources_of(self, feed: str) -> dict[str, PostgresSource | OpenMeteoSource | FredSource]:
        """The sources that deliver a feed, by name."""
        return {name: source for name, source in self.sources.items() if source.feed == feed}

    @model_validator(mode="after")
    def _credentials_of_object_storage(self) -> "Settings":
        if self.on_object_storage and not (self.s3_access_key and self.s3_secret_key):
            raise ValueError(
                f"lake.data is {self.lake.data}: set RETAIL_S3_ACCESS_KEY and RETAIL_S3_SECRET_KEY, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment"
            )
        return self

    def feed(self, name: str) -> FeedSettings:
        return self.feeds.get(name, FeedSettings())

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def on_object_storage(self) -> bool:
        """Whether the tables' files lie in S3-compatible storage and in no folder."""
        return self.lake.data.startswith(OBJECT_STORAGE)

    @property
    def data_location(self) -> str:
        """Folder or s3:// prefix of the tables' files, without a slash at its end."""
        return self.lake.data or str(self.home / "lake")

    @property
    def lake_data(self) -> Path:
        """The folder of the tables' files, where they lie in one."""
        if self.on_object_storage:
            raise ValueError(f"the tables' files lie in no folder, but at {self.lake.data}")
        return Path(self.data_location)

    @property
    def catalog_file(self) -> Path:
        return self.home / "catalog.sqlite"

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def reports(self) -> Path:
        return self.home / "reports"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"


def _has_store_days(feed: Feed) -> bool:
    return feed.date_column is not None and "store_id" in feed.column_names


def _no_source_of_days(feed: Feed, column: str) -> list[str]:
    times = [c.name for c in feed.columns if c.dtype == pl.Datetime("us")]
    if feed.date_column is None or not times:
        return [f"feed {feed.name} has no business day that could come from a time; leave out business_date_from"]
    if column not in times:
        return [f"feed {feed.name}: business_date_from must be {' or '.join(times)}, not {column}"]
    return []


def load_settings(environment: dict[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Read the settings: defaults, then `retail.toml`, then `RETAIL_*` (nested keys with two underscores).

    The file is the one that RETAIL_CONFIG names, else `retail.toml` in the home folder, else the one in
    `directory`. Raises `SettingsError` with every unknown key and unusable value at once.
    """
    environment = dict(os.environ if environment is None else environment)
    directory = directory or Path.cwd()
    variables = {k: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
    place = configuration_file(variables, directory)
    if "RETAIL_CONFIG" in variables and not place.is_file():
        raise SettingsError(f"RETAIL_CONFIG names {place}, which is not a file")
    variables.pop("RETAIL_CONFIG", None)
    values = _read_file(place)
    in_file = [name for name in _S3_CREDENTIALS if name in values]
    if in_file:
        raise SettingsError(f"{place}: {', '.join(in_file)} belong into the environment, never into a file")
    if re.search(r"://[^/]*:[^/]*@|[?&]password=", str(values.get("catalog", ""))):
        raise SettingsError(
            f"{place}: the password of the catalog belongs into the environment, never into a file: give the address "
            "as RETAIL_CATALOG, or leave the password out of it here and set PGPASSWORD"
        )
    for variable, text in variables.items():
        _put(values, variable, text)
    for name, variable in _S3_CREDENTIALS.items():
        if name not in values and variable in environment:
            values[name] = environment[variable]
    values["home"] = (directory / str(values.get("home", ".retail"))).absolute()
    try:
        return Settings.model_validate(values)
    except ValidationError as invalid:
        raise SettingsError(_explain(invalid, variables, place)) from None


def configuration_file(environment: dict[str, str] | None = None, directory: Path | None = None) -> Path:
    """Where the settings are read from; where no file is yet, the home folder's place for it."""
    environment = dict(os.environ if environment is None else environment)
    directory = directory or Path.cwd()
    if "RETAIL_CONFIG" in environment:
        return directory / environment["RETAIL_CONFIG"]
    of_home = directory / environment.get("RETAIL_HOME", ".retail") / "retail.toml"
    of_directory = directory / "retail.toml"
    return of_directory if of_directory.is_file() and not of_home.is_file() else of_home


def _read_file(place: Path) -> dict[str, Any]:
    if not place.is_file():
        return {}
    try:
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as broken:
        raise SettingsError(f"{place} is not TOML: {broken}") from None


def _put(values: dict[str, Any], variable: str, text: str) -> None:
    path = _path_of(variable)
    for depth, key in enumerate(path[:-1], start=1):
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{'.'.join(path[:depth])} is given as one value, and {variable} as a part of it")
    values[path[-1]] = [part.strip() for part in text.split(",")] if _is_list(path) else text


def _path_of(variable: str) -> list[str]:
    return variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")


def _is_list(path: list[str]) -> bool:
    """Whether the settings of this path are several values, which a variable separates by commas."""
    kind: Any = Settings
    for key in path:
        field = kind.model_fields.get(key) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        if field is None:
            return False
        kind = field.annotation
    return get_origin(kind) is tuple


_GROUPS = ("dict_type", "model_type", "model_attributes_type")
"""Pydantic's errors where a group of settings was expected."""


def _explain(invalid: ValidationError, variables: dict[str, str], place: Path) -> str:
    lines = []
    for error in invalid.errors():
        path = [str(part) for part in error["loc"]]
        if not path:
            # Settings that do not fit each other; the message names them.
            lines.append(error["msg"].removeprefix("Value error, "))
            continue
        if path[0] == "sources" and len(path) > 2:
            del path[2]  # pydantic names the kind of a source as if it were a level
        # A group that is unknown as a whole was given by the variables of its parts.
        given = [variable for variable in variables if _path_of(variable)[: len(path)] == path]
        where = f"the variable {', '.join(given)}" if given else str(place)
        if error["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown setting {'.'.join(path)}{_suggestion(path)}")
        else:
            problem = "is a group of settings, not one value" if error["type"] in _GROUPS else error["msg"]
            lines.append(f"{where}: {'.'.join(path)}: {problem.removeprefix('Value error, ')}")
    return "; ".join(lines)


def _suggestion(path: list[str]) -> str:
    from difflib import get_close_matches

    model: Any = Settings
    for part in path[:-1]:
        known = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = known.annotation if known else FeedSettings
    names = list(getattr(model, "model_fields", {}))
    if path[0] == "sources":
        names = [name for kind in (PostgresSource, OpenMeteoSource, FredSource) for name in kind.model_fields]
    close = get_close_matches(path[-1], names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
