"""Raw rows become clean rows, rejected rows with reasons, and duplicates. Pure Polars."""

from retail_platform.cleaning.budget import NOTHING_WAIVED, commonest_reasons, days_over_budget
from retail_platform.cleaning.calendar import merge_calendar, public_holidays
from retail_platform.cleaning.clean import CleanedFeed, References, clean_feed, time_zones_of
from retail_platform.cleaning.conform import ConformingStep
from retail_platform.cleaning.pseudonyms import CustomerKeyMissing, pseudonym
from retail_platform.cleaning.reasons import kind_of

__all__ = [
    "NOTHING_WAIVED",
    "CleanedFeed",
    "ConformingStep",
    "CustomerKeyMissing",
    "References",
    "clean_feed",
    "commonest_reasons",
    "days_over_budget",
    "kind_of",
    "merge_calendar",
    "pseudonym",
    "public_holidays",
    "time_zones_of",
]
