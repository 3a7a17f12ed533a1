"""How the rooms become a Dagster graph: assets, checks, sensors, automation. The only importer of dagster."""
