"""Hide secrets in what leaves a store: the values that are marked or named as secret, and their texts elsewhere."""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final
from urllib.parse import quote

from afterwards.core.literals import Literals
from afterwards.core.task import Failure, Task
from afterwards.core.urls import without_passwords

HIDDEN: Final = "[hidden]"
"""The text in place of a secret."""

RETURN: Final = "return"
"""The name of the result among a task's secrets."""

SHORTEST: Final = 4
"""Secrets with fewer characters are not looked for in texts, where they would hide parts of other words."""


def says_secret(name: str) -> bool:
    """Return True if a name says that its value is secret, in whole words: ``api_key`` or ``newPassword``.

    >>> says_secret("X-Api-Key"), says_secret("max_tokens")
    (True, False)
    """
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word in _SECRET for word in (*words, *map("".join, pairwise(words))))


class Redactor:
    """Hides the secrets of one task in other texts and values.

    ``secrets`` names parameters, "return" for the result, or a key anywhere within one of them: "user.password".
    Keys that say it (``says_secret``) are always secret.
    """

    def __init__(self, arguments: Mapping[str, Any], result: Any, secrets: Collection[str]) -> None:
        self._secrets = frozenset(secrets)
        found = [
            *(text for name, value in arguments.items() for text in self._texts(name, value)),
            *self._texts(RETURN, result),
        ]
        self._forms = frozenset(form for text in found for form in _forms(text))
        self._short = Literals((form for form in self._forms if len(form) <= _SHORT), HIDDEN)
        self._long: dict[str, list[str]] = {}  # by their ends: keys of one kind often begin alike
        for form in self._forms:
            if len(form) > _SHORT:
                self._long.setdefault(form[-_PIECE:], []).append(form)
        self._pieces = {piece for form in self._forms for piece in _pieces(form, _PIECE)}
        self._tiny = [form for form in self._forms if len(form) < _PIECE]
        self._is_small = len(self._tiny) <= _FEW and len(self._pieces) <= _MANY
        large = (form for form in self._forms if self._is_small and len(form) >= _PIECE)
        self._grams = {gram for form in large for gram in _pieces(form, _GRAM)}

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments by parameter, with every secret hidden."""
        return {name: self._part(name, value) for name, value in values.items()}

    def result(self, value: Any) -> Any:
        """Return a task's result, with every secret hidden. None is no result, and stays."""
        return None if value is None else self._part(RETURN, value)

    def text(self, text: str) -> str:
        """Return a text without the texts of the secrets, parts of long ones, and passwords in URLs."""
        if not self._may_be_in(text):
            return without_passwords(text, HIDDEN)
        shown = Literals(self._long_in(text), HIDDEN).replaced(text) if self._long else text
        shown = self._short.replaced(shown)
        return without_passwords(_without_pieces(shown, self._pieces) if self._pieces else shown, HIDDEN)

    def failure(self, failure: Failure) -> Failure:
        """Return a failure without the texts of the secrets."""
        return replace(failure, message=self.text(failure.message), traceback=self.text(failure.traceback))

    def value(self, value: Any) -> Any:
        """Return a JSON value without the texts of the secrets."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(part) for part in value]
            case dict():
                return {self.text(key): self.value(part) for key, part in value.items()}
        return HIDDEN if type(value) in (int, float) and str(value) in self._forms else value

    def _may_be_in(self, text: str) -> bool:
        """Return False if a text certainly has no secret, as nearly all have none. It is known quickly."""
        if not self._forms:
            return False
        if not self._is_small or any(form in text for form in self._tiny):
            return True
        # Wherever a piece stands, one of these grams is within it.
        places = range(0, len(text) - _GRAM + 1, _PIECE - _GRAM + 1)
        return any(text[at : at + _GRAM] in self._grams for at in places)

    def _long_in(self, text: str) -> list[str]:
        """Return the long forms that a text contains."""
        pieces = (text[at : at + _PIECE] for at in range(_SHORT + 1 - _PIECE, len(text) - _PIECE + 1))
        ends = {piece for piece in pieces if piece in self._long}
        return [form for end in ends for form in self._long[end] if form in text]

    def _part(self, place: str, value: Any) -> Any:
        if place in self._secrets or (place != RETURN and says_secret(place)):
            return HIDDEN
        return self.value(_without(value, self._keys(place)))

    def _texts(self, place: str, value: Any) -> Iterator[str]:
        """Yield the texts of the secrets within an argument or the result."""
        if place in self._secrets or (place != RETURN and says_secret(place)):
            yield from _leaves(value)
        else:
            for secret in _secret_parts(value, self._keys(place)):
                yield from _leaves(secret)

    def _keys(self, place: str) -> frozenset[str]:
        """Return the names of the secret keys within a parameter or the result."""
        return frozenset(secret[len(place) + 1 :] for secret in self._secrets if secret.startswith(f"{place}."))


def redactor_of(task: Task) -> Redactor:
    """Return the redactor of a task's own secrets. Stored texts that are not JSON have none."""
    arguments = json_value(task.arguments)
    return Redactor(arguments if isinstance(arguments, dict) else {}, json_value(task.result), task.secrets)


def json_value(text: str | None) -> Any:
    """Return the value of a stored JSON text; None without a text, and for one that is damaged."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without(value: Any, keys: Collection[str]) -> Any:
    """Return a JSON value with the values of these keys, and of keys that say it, hidden."""
    match value:
        case list():
            return [_without(part, keys) for part in value]
        case dict():
            return {key: HIDDEN if _is_secret(key, keys) else _without(part, keys) for key, part in value.items()}
    return value


def _secret_parts(value: Any, keys: Collection[str]) -> Iterator[Any]:
    """Yield what ``_without`` hides."""
    match value:
        case list():
            for part in value:
                yield from _secret_parts(part, keys)
        case dict():
            for key, part in value.items():
                if _is_secret(key, keys):
                    yield part
                else:
                    yield from _secret_parts(part, keys)


def _is_secret(key: str, keys: Collection[str]) -> bool:
    return key in keys or says_secret(key)


def _leaves(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value as texts."""
    match value:
        case str():
            yield value
        case bool():
            return
        case int() | float():
            yield str(value)
        case list():
            for part in value:
                yield from _leaves(part)
        case dict():
            for part in value.values():
                yield from _leaves(part)


def _forms(text: str) -> Iterator[str]:
    """Yield the forms in which messages, logs and tracebacks show a text, each with some characters at least."""
    for one in {text, text.strip(), *(line.strip() for line in text.splitlines()), *_decoded(text)}:
        yield from (form for form in _shown(one) if len(form) >= SHORTEST)


def _shown(text: str) -> Collection[str]:
    """Return a text as it is, in Python, in JSON, and in a URL."""
    if _IS_SAME_EVERYWHERE.fullmatch(text):
        return (text,)
    in_url = quote(text, safe="", errors="replace")
    in_form = in_url.replace("%20", "+")
    if _IS_SAME_IN_CODE.fullmatch(text):
        return (text, in_url, in_form)
    return (text, repr(text)[1:-1], _JSON.encode(text)[1:-1], _UNICODE_JSON.encode(text)[1:-1], in_url, in_form)


def _decoded(text: str) -> Iterable[str]:
    """Return the forms of bytes, which are stored as base64: their text, and what Python shows."""
    try:
        content = b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        return content.decode(), repr(content)[2:-1]
    except (binascii.Error, UnicodeError):
        return ()


def _pieces(form: str, size: int) -> Iterator[str]:
    """Yield all pieces of a long secret: libraries shorten long values, and some wrap them."""
    ends = (form,) if len(form) <= 2 * _MOST_INDEXED else (form[:_MOST_INDEXED], form[-_MOST_INDEXED:])
    for end in ends:
        for start in range(len(end) - size + 1):
            yield end[start : start + size]


def _without_pieces(text: str, pieces: Collection[str]) -> str:
    """Hide every run of characters in a text that consists of pieces of secrets."""
    shown: list[str] = []
    done = at = 0
    while at <= len(text) - _PIECE:
        if text[at : at + _PIECE] not in pieces:
            at += 1
            continue
        end = at + _PIECE
        while text[end - _PIECE + 1 : end + 1] in pieces and end < len(text):
            end += 1
        shown += [text[done:at], HIDDEN]
        done = at = end
    return "".join([*shown, text[done:]])


_SHORT: Final = 40
"""Characters of a form that is always looked for. A longer one is only looked for if a text has its end."""

_PIECE: Final = 12
"""Characters of a secret that are hidden, wherever they stand together."""

_GRAM: Final = 6
"""Characters that are enough to tell that a text has no piece."""

_FEW: Final = 50
"""Forms that are looked for one after the other."""

_MANY: Final = 20_000
"""Pieces, with more of which it takes longer to prepare a quick look than it saves: other values are small then."""

_MOST_INDEXED: Final = 4096
"""Characters at the beginning and at the end of a very long secret whose pieces are looked for."""

_JSON: Final = json.JSONEncoder()
_UNICODE_JSON: Final = json.JSONEncoder(ensure_ascii=False)
_IS_SAME_EVERYWHERE: Final = re.compile(r"[A-Za-z0-9_.~-]*")
_IS_SAME_IN_CODE: Final = re.compile(r"[ !#-&(-\[\]-~]*")  # printable ASCII without quotes and backslash
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET: Final = frozenset(
    (
        "password",
        "passwords",
        "passwd",
        "passphrase",
        "passcode",
        "pwd",
        "secret",
        "secrets",
        "token",
        "apikey",
        "accesskey",
        "privatekey",
        "signingkey",
        "encryptionkey",
        "authorization",
        "credential",
        "credentials",
        "cookie",
        "cookies",
    )
)
