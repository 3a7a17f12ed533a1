"""The key of the customer pseudonyms: made once, for its owner's eyes, and overruled by the settings."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from retail_platform.governance.customer_key import customer_key
from retail_platform.settings import Settings, load_settings


def test_a_key_is_made_once_and_only_its_owner_may_read_it(settings: Settings) -> None:
    key = customer_key(settings)
    file = settings.home / "customer.key"
    assert len(key) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert customer_key(settings) == key == file.read_bytes()
    assert [path.name for path in settings.home.iterdir()] == ["customer.key"]


def test_another_home_gets_another_key(settings: Settings) -> None:
    other = settings.model_copy(update={"home": settings.home.with_name("other")})
    assert customer_key(settings) != customer_key(other)


def test_the_key_of_the_settings_wins_and_is_not_written_anywhere(settings: Settings) -> None:
    made = customer_key(settings)
    given = load_settings({"RETAIL_HOME": str(settings.home), "RETAIL_CUSTOMER_KEY": "our own key"})
    assert customer_key(given) == b"our own key" != made
    assert (settings.home / "customer.key").read_bytes() == made


def test_a_given_key_makes_no_file_and_does_not_show_itself(settings: Settings) -> None:
    given = settings.model_copy(update={"customer_key": SecretStr("our own key")})
    assert customer_key(given) == b"our own key"
    assert not settings.home.exists()
    assert "our own key" not in f"{given!r} {given} {given.model_dump_json()}"


def test_a_key_that_others_can_read_is_refused_with_the_remedy(settings: Settings) -> None:
    customer_key(settings)
    file = settings.home / "customer.key"
    file.chmod(0o640)
    with pytest.raises(PermissionError, match=f"chmod 600 {file}"):
        customer_key(settings)


def test_all_who_come_at_once_get_the_same_key(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: customer_key(settings), range(16)))
    assert len(keys) == 1
