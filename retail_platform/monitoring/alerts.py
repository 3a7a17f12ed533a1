"""Alerts: what somebody should look at, with the remedy.

Here: how a row of monitoring.alerts is made. Not here: what calls for an alert, and how it is delivered.
"""

from datetime import datetime
from hashlib import sha256
from typing import Literal

import polars as pl

from retail_platform.contracts import TABLES

Severity = Literal["info", "warning", "critical"]


def alert(*, severity: Severity, subject: str, message: str, run_id: str, raised_at: datetime) -> pl.DataFrame:
    """One row of monitoring.alerts. `message` says what happened and what to do.

    The id follows from subject, message and run, so that a step that is tried again raises the same alert and no
    second one.
    """
    identity = f"{subject}\x1f{message}\x1f{run_id}"
    row = {
        "alert_id": sha256(identity.encode()).hexdigest()[:32],
        "raised_at": raised_at,
        "severity": severity,
        "subject": subject,
        "message": message,
        "run_id": run_id,
    }
    return pl.DataFrame([row], schema=TABLES["monitoring.alerts"].polars_schema)
