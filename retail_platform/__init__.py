"""From the point-of-sale file to the order proposal: an asset-based data platform for retail forecasting."""

import os

# OpenMP threads that spin while they wait made LightGBM five times slower beside one other busy process. The variable
# is read when the library is loaded, so it is set before any room can load it; a value from outside stands.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Dagster reads this wherever it logs events: so many of one step are written together.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
