"""The audit log: who decided what, when and why."""

import json
from datetime import datetime

import pytest

from retail_platform.contracts import ContractBroken
from retail_platform.governance.audit import audit_entry, person_at_work
from retail_platform.settings import Settings, SettingsError

FACTS = {
    "who": "ada",
    "action": "waive",
    "subject": "pos_sales",
    "reason": "the till was broken",
    "details": {"rows": 3},
    "decided_at": datetime(2017, 3, 1, 12),
}


def test_an_entry_keeps_who_what_when_and_why() -> None:
    row = audit_entry(**FACTS).row(0, named=True)
    assert {name: row[name] for name in ("who", "action", "subject", "reason", "decided_at")} == {
        name: value for name, value in FACTS.items() if name != "details"
    }
    assert json.loads(row["details"]) == {"rows": 3}


def test_the_same_decision_made_twice_is_two_entries() -> None:
    assert audit_entry(**FACTS)["audit_id"].item() != audit_entry(**FACTS)["audit_id"].item()


@pytest.mark.parametrize("changes", [{"who": " "}, {"reason": ""}, {"action": "Waive it"}])
def test_an_entry_that_says_nothing_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ContractBroken):
        audit_entry(**{**FACTS, **changes})


def test_the_person_at_work_is_the_setting_or_else_the_login_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    assert person_at_work(settings) == "grace"
    assert person_at_work(settings.model_copy(update={"user": "ada"})) == "ada"


def test_where_nobody_is_logged_in_the_remedy_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    with pytest.raises(SettingsError, match="RETAIL_USER"):
        person_at_work(settings)
