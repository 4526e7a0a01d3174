"""Decide what a signal asks for: to end, to end at once, or nothing that was not asked for already."""

from collections.abc import Mapping
from enum import StrEnum
from signal import SIGINT

PASSED_ON_WITHIN = 2.0
"""Seconds within which a server's parent passes a signal on. A terminal and systemd signal all processes of a group, so
that a child hears one request twice: from them, and from its parent, which does so at once (uvicorn's looks twice a
second). After that time, a second signal ends the process at once.
"""


class Asked(StrEnum):
    """The request that a signal makes of a process."""

    END = "end"
    END_NOW = "end now"
    THE_SAME = "the same"  # as before: it is one request, heard twice


def asked(number: int, now: float, heard: Mapping[int, float]) -> Asked:
    """Return what a signal asks for. ``heard`` has the seconds at which each signal was heard first.

    Ctrl-C after Ctrl-C always means at once, as for uvicorn: no server passes a Ctrl-C on as one.
    """
    if not heard:
        return Asked.END
    if (number == SIGINT and number in heard) or now - min(heard.values()) >= PASSED_ON_WITHIN:
        return Asked.END_NOW
    return Asked.THE_SAME
