"""An alert must keep its contract and its identity."""

from datetime import datetime

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.monitoring.alerts import alert


def raised(subject: str = "clean.sales", message: str = "m", run_id: str = "r", hour: int = 5) -> pl.DataFrame:
    row = alert(
        severity="warning", subject=subject, message=message, run_id=run_id, raised_at=datetime(2017, 3, 1, hour)
    )
    return TABLES["monitoring.alerts"].validate(row)


def test_trying_again_raises_the_same_alert() -> None:
    assert raised(hour=5)["alert_id"].item() == raised(hour=6)["alert_id"].item()


def test_another_subject_message_or_run_is_another_alert() -> None:
    alerts = [
        raised(),
        raised(subject="x"),
        raised(message="x"),
        raised(run_id="x"),
        raised("clean.sale", "sm"),
        raised(message="", run_id="mr"),
    ]
    assert TABLES["monitoring.alerts"].validate(pl.concat(alerts)).height == len(alerts)
