"""What the pages say about spans, instants and numbers."""

from datetime import UTC, datetime, timedelta

import pytest

from afterwards.dashboard import words

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.0004, "0 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (86399.6, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, said: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "now"), (-0.4, "now"), (-59, "59 s ago"), (-119, "1 min ago"), (-172800, "2 d ago"), (119, "in 1 min 59 s")],
)
def test_ages_are_rough_and_waits_exact(seconds: float, said: str) -> None:
    assert words.ago(NOW + timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(
    ("expression", "tz", "said"),
    [
        ("every 0:00:30", None, "Every 30 s"),
        ("every 1 day, 2:00:00", None, "Every 1 d 2 h"),
        ("every 0:00:01.500000", None, "Every 1.5 s"),
        ("*/15 * * * *", "UTC", "Every 15th minute of every hour (UTC)"),
        ("not an expression", "UTC", "not an expression"),
        ("<script>", None, "<script>"),
    ],
)
def test_a_schedule_is_a_sentence(expression: str, tz: str | None, said: str) -> None:
    assert words.schedule(expression, tz) == said
