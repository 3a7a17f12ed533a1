"""The audit log: one row for each decision of a person about data.

Here: how a row of governance.audit_log is made, and who is at work. Not here: the decisions; whoever carries one out
writes the row in the same transaction.
"""

import getpass
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.settings import Settings, SettingsError


def audit_entry(
    *,
    who: str,
    action: str,
    subject: str,
    reason: str | None,
    details: Mapping[str, Any],
    decided_at: datetime,
    run_id: str | None = None,
) -> pl.DataFrame:
    """One row of governance.audit_log, with an id of its own. `details` must hold no personal data."""
    row = {
        "audit_id": uuid4().hex,
        "decided_at": decided_at,
        "who": who,
        "action": action,
        "subject": subject,
        "reason": reason,
        "details": json.dumps(dict(details), default=str, ensure_ascii=False),
        "run_id": run_id,
    }
    table = TABLES["governance.audit_log"]
    return table.validate(pl.DataFrame([row], schema=table.polars_schema))


def person_at_work(settings: Settings) -> str:
    """Who decides: the setting `user`, else the login name. Raises `SettingsError` where neither is known."""
    if settings.user:
        return settings.user
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise SettingsError("nobody is logged in here; say who decides with RETAIL_USER") from None
