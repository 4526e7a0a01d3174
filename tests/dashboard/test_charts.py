"""The geometry of the chart."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from afterwards.core.tallies import Ends, Tally
from afterwards.dashboard.charts import HEIGHT, LEAST, Chart, chart
from afterwards.dashboard.throughput import Span, Throughput, filled

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def _chart(*ends: Ends) -> Chart:
    tallies = [Tally(NOW - timedelta(minutes=place), one) for place, one in enumerate(ends)]
    return chart(Throughput(Span.HOUR, filled(tallies, Span.HOUR, NOW)))


counts = st.integers(0, 10_000_000)


@given(st.lists(st.builds(Ends, counts, counts, counts), max_size=20))
def test_every_bar_is_inside_and_on_its_side_of_the_line(ends: list[Ends]) -> None:
    drawn = _chart(*ends)
    for bar in drawn.bars:
        for part in bar.parts:
            assert part.height >= LEAST
            if part.kind == "succeeded":
                assert 0 <= part.y <= drawn.line
            else:
                assert drawn.line <= part.y
                assert part.y + part.height <= HEIGHT + 2 * LEAST + 0.2


def test_one_failure_among_many_successes_is_seen() -> None:
    drawn = _chart(Ends(1_000_000, 0, 0), Ends(0, 1, 0))
    assert [part.kind for part in drawn.bars[-2].parts] == ["failed"]
    assert drawn.bars[-2].parts[0].height == LEAST


def test_a_bar_with_twice_as_many_is_twice_as_high() -> None:
    drawn = _chart(Ends(200, 0, 0), Ends(100, 0, 0))
    [one], [other] = drawn.bars[-2].parts, drawn.bars[-1].parts
    assert other.height == 2 * one.height


def test_the_numbers_beside_it() -> None:
    drawn = _chart(Ends(6, 1, 3), Ends(3, 2, 0))
    assert (drawn.total, drawn.peak, drawn.success_rate) == (Ends(9, 3, 3), 10, 75)
    assert drawn.labels == ("11:30", "11:45", "12:00", "12:15", "12:30")


def test_nothing_has_ended_yet() -> None:
    drawn = _chart()
    assert drawn.success_rate is None
    assert drawn.peak == 0
    assert all(bar.parts == () for bar in drawn.bars)
