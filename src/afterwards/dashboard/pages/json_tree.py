"""A JSON value as a tree that a page can show: bounded, and with numbers as they are stored."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_NODES = 1000
"""The nodes that one tree has. The API returns the whole value."""

DEEPEST = 20
"""Below this depth a value is one line of text."""

LONG = 300
"""Text of more characters is folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value, or a member of one."""

    kind: str  # object, array, text, number, or word: true, false and null
    text: str = ""  # of a value without members
    key: str | None = None
    children: tuple["Node", ...] = ()
    left_out: int = 0  # members that are not shown

    @property
    def long(self) -> bool:
        return len(self.text) > LONG

    @property
    def size(self) -> int:
        return len(self.children) + self.left_out


def tree(value: Any, key: str | None = None) -> Node:
    """Return the tree of a JSON value."""
    return _Planter().node(value, key, depth=0)


class _Planter:
    """Counts the nodes of one tree."""

    def __init__(self) -> None:
        self._left = MOST_NODES

    def node(self, value: Any, key: str | None, depth: int) -> Node:
        self._left -= 1
        if isinstance(value, Mapping) and depth < DEEPEST:
            return self._parent("object", key, [(str(name), member) for name, member in value.items()], depth)
        if isinstance(value, list | tuple) and depth < DEEPEST:
            return self._parent("array", key, [(str(place), member) for place, member in enumerate(value)], depth)
        return Node(kind=_kind(value), key=key, text=_text(value))

    def _parent(self, kind: str, key: str | None, members: Sequence[tuple[str, Any]], depth: int) -> Node:
        children = tuple(self._children(members, depth))
        return Node(kind=kind, key=key, children=children, left_out=len(members) - len(children))

    def _children(self, members: Iterable[tuple[str, Any]], depth: int) -> Iterable[Node]:
        for key, member in members:
            if self._left <= 0:
                return
            yield self.node(member, key, depth + 1)


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "word"
    return "number" if isinstance(value, int | float) else "text"


def _text(value: Any) -> str:
    """Return text as it is, and everything else as JSON. A number has all its digits."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
