"""When science refreshes itself: every automation condition of the platform is composed here.

Cleaning is not here: which business days changed is known from the ledger, and a sensor asks for exactly those.
"""

from typing import Any

import dagster as dg

refresh_on_new_data: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.any_deps_updated()
    # An update that arrives while the asset cannot run yet is remembered until it has run, not lost at the next tick.
    .since(dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated())
    # `eager()` would also ask for the latest day alone and for no gap in the history of days; a late or corrected
    # day must refresh the panel all the same, and no retailer has a row for every day since the first one accepted.
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    # Without this clause a failed blocking check of an earlier run would not hold the next one back.
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("refresh on new data")

train_when_missing: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.missing()
    .newly_true()
    .since(dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated())
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("train the first model")

MONTHLY = "0 3 1 * *"

retrain: dg.AutomationCondition[Any] = (train_when_missing | dg.AutomationCondition.on_cron(MONTHLY)).with_label(
    "train the first model, then once a month"
)
