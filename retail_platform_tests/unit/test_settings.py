"""Settings: what wins over what, and what is refused with the place and the remedy."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from retail_platform.settings import ForecastSettings, Settings, SettingsError, configuration_file, load_settings


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_without_file_and_variables_there_are_the_defaults(tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path)
    assert settings == Settings(home=tmp_path / ".retail")
    assert settings.forecast.horizon_days == 28


def test_a_file_wins_over_defaults_and_a_variable_over_the_file(tmp_path: Path) -> None:
    write(tmp_path / "retail.toml", 'country = "DE"\n[forecast]\ntrees = 10\nleaves = 20\n')
    settings = load_settings({"RETAIL_FORECAST__TREES": "30"}, tmp_path)
    assert (settings.country, settings.forecast.leaves, settings.forecast.trees) == ("DE", 20, 30)
    assert settings.forecast.horizon_days == ForecastSettings().horizon_days


def test_the_file_of_the_home_wins_over_that_of_the_directory_and_a_named_one_over_both(tmp_path: Path) -> None:
    write(tmp_path / "retail.toml", 'country = "DE"')
    assert load_settings({}, tmp_path).country == "DE"
    of_home = write(tmp_path / "home" / "retail.toml", 'country = "FR"')
    assert load_settings({"RETAIL_HOME": "home"}, tmp_path).country == "FR"
    assert configuration_file({"RETAIL_HOME": "home"}, tmp_path) == of_home
    named = write(tmp_path / "own.toml", 'country = "IT"')
    assert load_settings({"RETAIL_HOME": "home", "RETAIL_CONFIG": str(named)}, tmp_path).country == "IT"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"RETAIL_CONFIG names .*nowhere\.toml, which is not a file"):
        load_settings({"RETAIL_CONFIG": "nowhere.toml"}, tmp_path)


def test_text_of_variables_becomes_the_types_of_the_settings(tmp_path: Path) -> None:
    variables = {
        "RETAIL_START_DATE": "2016-02-29",
        "RETAIL_FORECAST__HORIZON_BLOCKS": "7, 28",
        "RETAIL_FORECAST__MODELS": "lightgbm, seasonal_naive, auto_ets",
        "RETAIL_CHAMPION__GUARDED": "horizon,store",
        "RETAIL_FORECAST__EXCLUDED_CATEGORIES": "FUEL, COUPONS",
        "RETAIL_REPLENISHMENT__SERVICE_LEVEL": "0.9",
        "RETAIL_FEEDS__POS_SALES__DELIMITER": ";",
    }
    settings = load_settings(variables, tmp_path)
    assert settings.start_date == date(2016, 2, 29)
    assert settings.forecast.horizon_blocks == (7, 28)
    assert settings.forecast.excluded_categories == ("FUEL", "COUPONS")
    assert settings.forecast.models == ("lightgbm", "seasonal_naive", "auto_ets")
    assert settings.champion.guarded == ("horizon", "store")
    assert settings.replenishment.service_level == 0.9
    assert settings.feed("pos_sales").delimiter == ";"
    assert settings.feed("items").delimiter == ","


def test_variables_of_other_programs_are_none_of_our_business(tmp_path: Path) -> None:
    assert load_settings({"HOME": "x", "RETAILER": "x"}, tmp_path) == load_settings({}, tmp_path)


def test_every_mistake_is_named_at_once_with_its_place_and_a_suggestion(tmp_path: Path) -> None:
    file = write(tmp_path / "retail.toml", 'contry = "DE"\n[forecast]\nhorizon_day = 14\nleaves = "many"\n')
    with pytest.raises(SettingsError) as refused:
        load_settings({"RETAIL_FORECAST__TREES": "-3"}, tmp_path)
    message = str(refused.value)
    for words in (
        f"{file}: unknown setting contry; did you mean country?",
        f"{file}: unknown setting forecast.horizon_day; did you mean horizon_days?",
        f"{file}: forecast.leaves: ",
        "the variable RETAIL_FORECAST__TREES: forecast.trees: ",
    ):
        assert words in message


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RETAIL_FORCAST__TREES": "3"}, "the variable RETAIL_FORCAST__TREES: unknown setting forcast"),
        ({"RETAIL_FORECAST__TRES": "3"}, "RETAIL_FORECAST__TRES: unknown setting forecast.tres; did you mean trees?"),
        ({"RETAIL_CATALOG": "mysql://x"}, "catalog must be 'sqlite' or a postgres:// address"),
        ({"RETAIL_FORECAST__HORIZON_BLOCKS": "14,7"}, "horizon_blocks must be ascending positive days"),
        ({"RETAIL_FORECAST__MODELS": "lightgbm,theta"}, "forecast.models lacks seasonal_naive"),
        ({"RETAIL_FEEDS__SALES__DELIMITER": ";"}, "unknown feed sales; known are pos_sales, "),
        ({"RETAIL_FEEDS__ITEMS__COLUMNS__SKU": "x"}, "feed items has no column sku; it has item_id, "),
        (
            {"RETAIL_FEEDS__ITEMS__DECIMAL": ",", "RETAIL_FEEDS__ITEMS__THOUSANDS": ","},
            "are both ','; they must differ",
        ),
        ({"RETAIL_FEEDS__ITEMS__DATE_FORMAT": "%d.%q"}, "%q is not known; known are %Y, "),
        ({"RETAIL_FEEDS__ITEMS__DATE_FORMAT": "%d.%m"}, "%Y or %y must stand in it once"),
        ({"RETAIL_FEEDS__ITEMS__DATETIME_FORMAT": "%d.%m.%Y %I:%M"}, "%I and %p belong together"),
        ({"RETAIL_FEEDS__ITEMS__TIME_ZONE": "Mars"}, "'Mars' is not an IANA time zone such as Europe/Berlin"),
        ({"RETAIL_FEEDS__ITEMS__BUSINESS_DATE_FROM": "x"}, "feed items has no business day"),
        ({"RETAIL_FEEDS__POS_SALES__BUSINESS_DATE_FROM": "x"}, "business_date_from must be sold_at, not x"),
        ({"RETAIL_FEEDS__ITEMS__REPLACES": "store_day"}, "feed items has no store and day that a file could replace"),
        (
            {"RETAIL_FEEDS__POS_SALES__REPLACES": "day"},
            "feeds.pos_sales.replaces: Input should be 'row' or 'store_day'",
        ),
        ({"RETAIL_DRIFT__SHARE_OF_COLUMNS": "1.5"}, "drift.share_of_columns: "),
        ({"RETAIL_START_DATE": "yesterday"}, "start_date: "),
        ({"RETAIL_FORECAST": "3"}, "the variable RETAIL_FORECAST: forecast: is a group of settings, not one value"),
        ({"RETAIL_FEEDS__SALES__DECIMAL": ","}, "the variable RETAIL_FEEDS__SALES__DECIMAL: feeds: unknown feed sales"),
        ({"RETAIL_FORECAST": "3", "RETAIL_FORECAST__TREES": "3"}, "forecast is given as one value"),
    ],
)
def test_a_mistake_in_a_variable_is_named_with_the_variable(
    tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(variables, tmp_path)
    assert words in str(refused.value)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "retail.toml", "country = Germany")
    with pytest.raises(SettingsError, match=f"{file} is not TOML"):
        load_settings({}, tmp_path)


@pytest.mark.parametrize("address", ["postgresql://u:h1dden@db/lake", "postgresql://db/lake?user=u&password=h1dden"])
def test_the_password_of_the_catalog_is_taken_from_the_environment_only(tmp_path: Path, address: str) -> None:
    assert load_settings({"RETAIL_CATALOG": address}, tmp_path).catalog == address
    write(tmp_path / "retail.toml", f'catalog = "{address}"')
    with pytest.raises(SettingsError, match="give the address as RETAIL_CATALOG") as refused:
        load_settings({}, tmp_path)
    assert "h1dden" not in str(refused.value)
    write(tmp_path / "retail.toml", 'catalog = "postgresql://u@db:5432/lake"')
    assert load_settings({}, tmp_path).catalog == "postgresql://u@db:5432/lake"


def test_a_refused_setting_does_not_show_a_secret(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"RETAIL_CATALOG": "mysql://user:secret@host/x", "RETAIL_CUSTOMER_KEY": "secret"}, tmp_path)
    assert "secret" not in str(refused.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().country = "DE"


def test_everything_written_lies_below_the_home() -> None:
    settings = Settings(home=Path("somewhere"))
    places = (settings.landing, settings.lake_data, settings.catalog_file, settings.models, settings.reports)
    assert {place.parent for place in (*places, settings.dagster_home)} == {settings.home}


@given(name=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20), value=st.text(max_size=5))
def test_no_unknown_setting_is_passed_over(name: str, value: str) -> None:
    if name in Settings.model_fields or "__" in name or name == "config":
        return
    with pytest.raises(SettingsError, match="unknown setting"):
        load_settings({f"RETAIL_{name.upper()}": value}, Path("no-such-folder"))


S3 = {"RETAIL_LAKE__DATA": "s3://bucket/lake/", "RETAIL_LAKE__S3_ENDPOINT": "https://storage.example:9000"}


def test_object_storage_takes_its_credentials_from_either_family_of_variables(tmp_path: Path) -> None:
    own = {"RETAIL_S3_ACCESS_KEY": "a", "RETAIL_S3_SECRET_KEY": "own"}
    common = {"AWS_ACCESS_KEY_ID": "b", "AWS_SECRET_ACCESS_KEY": "common"}
    settings = load_settings({**S3, **common}, tmp_path)
    assert settings.data_location == "s3://bucket/lake"
    assert settings.s3_secret_key is not None
    assert settings.s3_secret_key.get_secret_value() == "common"
    settings = load_settings({**S3, **common, **own}, tmp_path)
    assert settings.s3_secret_key is not None
    assert settings.s3_secret_key.get_secret_value() == "own"
    assert "own" not in repr(settings)


def test_object_storage_without_credentials_or_with_some_in_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RETAIL_S3_ACCESS_KEY"):
        load_settings(S3, tmp_path)
    write(tmp_path / "retail.toml", 's3_secret_key = "shown"')
    with pytest.raises(SettingsError, match="s3_secret_key belong into the environment") as refused:
        load_settings({}, tmp_path)
    assert "shown" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["relative/folder", "s3://", "http://bucket"])
def test_a_data_location_is_a_whole_path_or_a_bucket(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"lake\.data"):
        load_settings({"RETAIL_LAKE__DATA": wrong}, tmp_path)


TILLS = """
[sources.tills]
kind = "postgres"
feed = "pos_sales"
address = "postgresql://reader@db.example/tills"
table = "lines"
cursor = "posted_at"
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('password = "h1dden"', "password does not belong into the settings; put it into an environment variable"),
        ('address = "postgresql://reader:h1dden@db.example/tills"', "take it out of the address"),
        ('address = "postgresql://db.example/tills?password=h1dden"', "take it out of the address"),
        ('address = "db.example"', "address must be of the form postgresql://"),
        ('password_variable = "RETAIL_PASSWORD"', "variables that begin with RETAIL_ are settings"),
        ('password_variable = "h1dden"', "capital letters, digits and _ only"),
        ('query = "SELECT 1"', "give either table or query"),
        ('feed = "sale"', "unknown feed sale"),
        ("columns = { amount = 'x' }", "feed pos_sales has no column amount"),
        ('kind = "oracle"', "sources.tills: Input tag 'oracle' found"),
        ("curser = 'x'", "unknown setting sources.tills.curser; did you mean cursor?"),
        ("[feeds.pos_sales]\ndecimal = ','", "feed pos_sales has a source, whose extracts are in ISO forms"),
        ("[feeds.pos_sales]\nreplaces = 'store_day'", "extracts hold only what is new and no whole days"),
        ("[sources.Tills-2]\nkind = 'fred'\napi_key_variable = 'K'\nseries = {a = {id = 'A', unit = '%'}}", "Tills-2"),
        ("[sources.e]\nkind = 'fred'\nurl = 'http://fred.example'", "http://fred.example must begin with https://"),
    ],
)
def test_what_a_source_must_not_be_is_refused_with_a_remedy_and_without_the_secret(
    tmp_path: Path, change: str, words: str
) -> None:
    key = change.split(" =", maxsplit=1)[0]
    kept = [line for line in TILLS.splitlines() if not line.startswith(f"{key} =")]
    write(tmp_path / "retail.toml", "\n".join([*kept, change]))
    with pytest.raises(SettingsError) as refused:
        load_settings({}, tmp_path)
    assert words in str(refused.value)
    assert "h1dden" not in str(refused.value)


def test_a_source_that_is_whole_is_accepted(tmp_path: Path) -> None:
    write(tmp_path / "retail.toml", TILLS)
    settings = load_settings({}, tmp_path)
    assert list(settings.sources_of("pos_sales")) == ["tills"]
    assert settings.sources_of("weather") == {}
    assert settings.sources["tills"].required
