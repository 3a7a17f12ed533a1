"""What Dagster loads."""

from retail_platform.orchestration.build import build_definitions

defs = build_definitions()
