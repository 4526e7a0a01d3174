"""The colours of the pages can be read (WCAG AA), in the light and in the dark."""

import re
from itertools import product

import pytest

from afterwards.dashboard.pages.assets import ASSETS

PAIR = re.compile(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)")

COLOURS = {name: (light, dark) for name, light, dark in PAIR.findall(ASSETS["dashboard.css"].content.decode())}

TEXTS = ("text", "soft", "accent", "good", "bad", "wait")
GROUNDS = ("ground", "surface", "raised")


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("text", "ground"), [*product(TEXTS, GROUNDS), ("on-accent", "accent")])
@pytest.mark.parametrize("theme", [0, 1])
def test_text_can_be_read(text: str, ground: str, theme: int) -> None:
    assert _contrast(COLOURS[text][theme], COLOURS[ground][theme]) >= 4.5


@pytest.mark.parametrize("fill", ["good-fill", "bad-fill"])
@pytest.mark.parametrize("theme", [0, 1])
def test_bars_can_be_seen(fill: str, theme: int) -> None:
    assert _contrast(COLOURS[fill][theme], COLOURS["surface"][theme]) >= 3
