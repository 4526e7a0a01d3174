"""Hide secrets in what leaves a store: the values that are marked or named as secret, and their texts elsewhere."""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final
from urllib.parse import quote, quote_plus

from afterwards.core.task import Failure, Task

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
        self._forms = sorted({form for text in found for form in _forms(text)}, key=len, reverse=True)
        self._long = [form for form in self._forms if len(form) > _MOST_COMPILED]
        short = self._forms[len(self._long) :]
        self._short = re.compile("|".join(map(re.escape, short))) if short else None
        self._pieces = {piece for form in self._forms for piece in _pieces(form)}

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments by parameter, with every secret hidden."""
        return {name: self._part(name, value) for name, value in values.items()}

    def result(self, value: Any) -> Any:
        """Return a task's result, with every secret hidden. None is no result, and stays."""
        return None if value is None else self._part(RETURN, value)

    def text(self, text: str) -> str:
        """Return a text without the texts of the secrets, parts of long ones, and passwords in URLs."""
        shown = text
        if found := [re.escape(form) for form in self._long if form in text]:
            shown = re.sub("|".join(found), HIDDEN, shown)
        if self._short is not None:
            shown = self._short.sub(HIDDEN, shown)
        return _in_urls(_without_pieces(shown, self._pieces) if self._pieces else shown)

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
    shown = [text, text.strip(), *(line.strip() for line in text.splitlines()), *_decoded(text)]
    for one in shown:
        escaped = (repr(one)[1:-1], json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1])
        for form in (one, *escaped, quote(one, safe="", errors="replace"), quote_plus(one, errors="replace")):
            if len(form) >= SHORTEST:
                yield form


def _decoded(text: str) -> Iterable[str]:
    """Return the forms of bytes, which are stored as base64: their text, and what Python shows."""
    try:
        content = b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        return content.decode(), repr(content)[2:-1]
    except (binascii.Error, UnicodeError):
        return ()


def _pieces(form: str) -> Iterator[str]:
    """Yield all pieces of a long secret: libraries shorten long values, and some wrap them."""
    ends = (form,) if len(form) <= 2 * _MOST_INDEXED else (form[:_MOST_INDEXED], form[-_MOST_INDEXED:])
    for end in ends:
        for start in range(len(end) - _PIECE + 1):
            yield end[start : start + _PIECE]


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


def _in_urls(text: str) -> str:
    """Hide passwords and secret parameters in the URLs of a text."""
    if "=" not in text and "@" not in text:
        return text
    return _in_parameters(_URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text))


def _in_parameters(text: str) -> str:
    """Hide the values of secret parameters. It takes time in proportion to the text, whatever somebody has written."""
    shown: list[str] = []
    done = 0
    for name in _URL_PARAMETER.finditer(text):
        if name.start() >= done and _SECRET_PARAMETER.search(name[0]):
            shown += [text[done : name.end()], HIDDEN]
            done = _URL_VALUE.match(text, name.end()).end()  # type: ignore[union-attr]  # it may be empty
    return "".join([*shown, text[done:]])


_MOST_COMPILED: Final = 40
"""Characters of a form that is always compiled. All forms of a long secret take a hundred times as long to compile as
to look for in a text, where they rarely are."""

_PIECE: Final = 12
"""Characters of a secret that are hidden, wherever they stand together."""

_MOST_INDEXED: Final = 4096
"""Characters at the beginning and at the end of a very long secret whose pieces are looked for."""

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
_URL_PASSWORD: Final = re.compile(r"(://[^\s/?#:@\"<>]*):[^\s/?#\"<>]*@")
_URL_PARAMETER: Final = re.compile(r"[?&][^=&?\s\"'<>]*=")
_URL_VALUE: Final = re.compile(r"[^&#\s\"'<>]*")
_SECRET_PARAMETER: Final = re.compile(r"password|passwd|secret|token|api_?key", re.IGNORECASE)
