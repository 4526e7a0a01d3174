"""Pydantic's errors for a value of the right type whose contents break a rule of its annotation."""

from typing import Final

RULES: Final = frozenset(
    {
        "assertion_error",
        "date_future",
        "date_past",
        "datetime_future",
        "datetime_past",
        "decimal_max_digits",
        "decimal_max_places",
        "decimal_whole_digits",
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "literal_error",
        "multiple_of",
        "string_pattern_mismatch",
        "string_too_long",
        "string_too_short",
        "bytes_too_long",
        "bytes_too_short",
        "timezone_aware",
        "timezone_naive",
        "too_long",
        "too_short",
        "value_error",
    }
)
"""Types of errors that FastAPI does not notice unless the endpoint has the same rule: a client may have caused them."""
