"""Replace any of very many texts in another text."""

from collections.abc import Iterable
from typing import Final

_HEAD: Final = 4
"""Characters by which a text is found."""


class Literals:
    """Texts of four characters or more that are looked for together. At a place, the longest counts.

    The time does not depend on their number, as it would with a regular expression of them all.
    """

    def __init__(self, texts: Iterable[str], replacement: str) -> None:
        self._replacement = replacement
        self._texts = frozenset(texts)
        lengths: dict[str, set[int]] = {}
        for text in self._texts:
            lengths.setdefault(text[:_HEAD], set()).add(len(text))
        self._lengths = {head: sorted(found, reverse=True) for head, found in lengths.items()}

    def replaced(self, text: str) -> str:
        """Return a text with all of them replaced."""
        if not self._texts:
            return text
        shown: list[str] = []
        done = at = 0
        last, lengths = len(text) - _HEAD, self._lengths
        while at <= last:
            if text[at : at + _HEAD] not in lengths or not (length := self._length_at(text, at)):
                at += 1
                continue
            shown += [text[done:at], self._replacement]
            done = at = at + length
        return "".join([*shown, text[done:]])

    def _length_at(self, text: str, at: int) -> int:
        """Return the length of the longest of them that begins at a place; 0 without one."""
        lengths = self._lengths[text[at : at + _HEAD]]
        return next((length for length in lengths if text[at : at + length] in self._texts), 0)
