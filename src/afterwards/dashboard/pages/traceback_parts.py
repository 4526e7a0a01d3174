"""A recorded traceback, divided into the user's own frames and those of libraries."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter

_FRAME = re.compile(r'^[ |]*File "([^"]+)", line \d+')
_INSIDE = re.compile(r"^(?: *\|)* {4,}[^\s|]")  # the source line of a frame, or the marks below it
_LIBRARY = re.compile(r"[/\\](site-packages|dist-packages)[/\\]|[/\\]lib[/\\]python\d|[/\\]Lib[/\\]|^<")


class Kind(StrEnum):
    """The kind of a part."""

    TEXT = "text"  # what is around the frames, such as the exception's message
    OWN = "own"
    LIBRARY = "library"


@dataclass(frozen=True, slots=True, kw_only=True)
class TracebackPart:
    """Consecutive lines of one kind."""

    kind: Kind
    text: str
    frames: int


def traceback_parts(text: str) -> list[TracebackPart]:
    """Divide a traceback. All its lines are in the parts, in their order; text of any other kind is one part."""
    return [
        TracebackPart(kind=kind, text="\n".join(line for _, line in lines), frames=_frames(lines))
        for kind, lines in ((kind, list(group)) for kind, group in groupby(_marked(text), key=itemgetter(0)))
    ]


def _marked(text: str) -> Iterator[tuple[Kind, str]]:
    """Yield each line with its kind. A line belongs to the frame above it as long as it is indented deeper."""
    kind = Kind.TEXT
    for line in text.rstrip("\n").split("\n"):
        if frame := _FRAME.match(line):
            kind = Kind.LIBRARY if _LIBRARY.search(frame[1]) else Kind.OWN
        elif not _INSIDE.match(line):
            kind = Kind.TEXT
        yield kind, line


def _frames(lines: list[tuple[Kind, str]]) -> int:
    return sum(_FRAME.match(line) is not None for _, line in lines)
