"""The stylesheet, the script and the icon, under names that change with their content."""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final

TYPES: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

FOR_EVER: Final = "private, max-age=31536000, immutable"
"""A changed file has another name. Not public: whoever ``auth`` refuses gets no file either."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages refer to."""

    name: str  # with a part of the hash of its content
    type: str
    content: bytes


def _load(name: str) -> Asset:
    content = (files("afterwards.dashboard") / "static" / name).read_bytes()
    stem, _, ending = name.partition(".")
    return Asset(f"{stem}.{sha256(content).hexdigest()[:10]}.{ending}", TYPES[name], content)


ASSETS: Final = {name: _load(name) for name in TYPES}
"""The files by the names that templates use."""

SERVED: Final = {asset.name: asset for asset in ASSETS.values()}
"""The files by their names in addresses."""
