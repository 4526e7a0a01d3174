"""Format figures as a text table."""

from collections.abc import Sequence
from statistics import median

from benchmarks.measure import Figure

HEADS = ("", "ours", "against", "theirs", "ratio (min-max)", "aim", "")


def written(figures: Sequence[Figure]) -> str:
    """Return a table of medians."""
    lines = [HEADS, *map(_line, figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _line(figure: Figure) -> tuple[str, ...]:
    return (
        "  " + figure.what,
        _number(median(figure.ours)) + figure.unit,
        figure.peer,
        _number(median(figure.theirs)) + figure.unit if figure.theirs else "",
        _spread(figure.ratios),
        str(figure.aim or ""),
        {True: "reached", False: "MISSED", None: ""}[figure.reached],
    )


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
