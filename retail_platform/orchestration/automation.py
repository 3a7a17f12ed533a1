"""When science refreshes itself: every automation condition of the platform is composed here.

Cleaning is not here: which business days changed is known from the ledger, and a sensor asks for exactly those.
"""

from typing import Any

import dagster as dg

# Dagster's own `all_deps_blocking_checks_passed` waits for the checks of tables that were never made: a retailer
# without the feed of stock would never see a feature computed. A check that is still to come holds back as well.
no_blocking_check_failed: dg.AutomationCondition[Any] = (
    ~dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.any_checks_match(
            dg.AutomationCondition.check_failed()
            | dg.AutomationCondition.execution_failed()
            | dg.AutomationCondition.in_progress(),
            blocking_only=True,
        )
    )
).with_label("no blocking check failed upstream")

refresh_on_new_data: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.any_deps_updated()
    # An update is remembered until it has been answered by a request. The asset's own update is no answer: it may come
    # from a run that had read its sources before. Nor do updates of one run start another one.
    .since(dg.AutomationCondition.newly_requested())
    # `eager()` would also ask for the latest day alone and for no gap in the history of days; a late or corrected
    # day must refresh the panel all the same, and no retailer has a row for every day since the first one accepted.
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    # Without this clause a failed blocking check of an earlier run would not hold the next one back.
    & no_blocking_check_failed
).with_label("refresh on new data")


def refresh_once_there_is(table: str) -> dg.AutomationCondition[Any]:
    """Refresh on new data of any kind, but not before `table` was made: until then a run could only fail.

    Items and stores may arrive days before the first sales.
    """
    there = ~dg.AutomationCondition.missing() | dg.AutomationCondition.will_be_requested()
    condition = refresh_on_new_data & dg.AutomationCondition.asset_matches(dg.AssetKey(table.split(".")), there)
    return condition.with_label(f"refresh on new data, once there is {table}")


# On new data, not on the mere lack of a model: a first training that failed is tried again with the next delivery.
train_when_missing: dg.AutomationCondition[Any] = (refresh_on_new_data & dg.AutomationCondition.missing()).with_label(
    "train the first model"
)

MONTHLY = "0 3 1 * *"

retrain: dg.AutomationCondition[Any] = (train_when_missing | dg.AutomationCondition.on_cron(MONTHLY)).with_label(
    "train the first model, then once a month"
)
