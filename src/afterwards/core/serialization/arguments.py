"""Codecs for the arguments and the result of a task function: JSON text that is proved to load equal."""

from collections.abc import Callable, Collection
from functools import partial
from inspect import Parameter, signature
from typing import Any, Final

from pydantic import ValidationError

from afterwards.core.errors import RefusedArgument, TooLarge, Unreadable, UnstorableArgument, UnstorableResult
from afterwards.core.keys import Bound
from afterwards.core.redaction import RETURN
from afterwards.core.secret import secrets_of
from afterwards.core.serialization.compare import any_stream, is_stream
from afterwards.core.serialization.explain import CHANGED, UNUSABLE, first_fault, schema_of
from afterwards.core.serialization.files import StoredFile, is_upload, may_hold_files, replaced
from afterwards.core.serialization.json import Json
from afterwards.core.serialization.schema import closed
from afterwards.core.serialization.sent import may_be_sent
from afterwards.core.serialization.signature import NAMED, POSITIONAL, argument_type, arguments_type, binder, resolved

ARGUMENTS_LIMIT: Final = 256 * 1024  # bytes of UTF-8
RESULT_LIMIT: Final = 64 * 1024  # bytes of UTF-8

Refer = Callable[[str, Any], StoredFile]
"""A function that returns the reference for an upload in a parameter, and has its content stored."""


class Codec:
    """The codec for a task function's arguments, by the types of its signature."""

    def __init__(self, function: Callable[..., Any], *, name: str, injected: Collection[str] = ()) -> None:
        """``injected`` names the parameters that dependencies fill when the task runs: they are not arguments.

        The attribute ``files`` holds the names of parameters that take uploaded files, ``secrets`` what is never shown
        (``Redactor``).
        Raises UnusableAnnotation.
        """
        self.task = name
        self._parameters = tuple(signature(function).parameters.values())
        own = [parameter for parameter in self._parameters if parameter.name not in injected]
        self._types = {parameter.name: argument_type(function, parameter, name) for parameter in own}
        self._json = Json(closed(schema_of(arguments_type(own, self._types))))
        self.files = frozenset(name for name, kind in self._types.items() if may_hold_files(kind))
        self.secrets = tuple(one for name, kind in self._types.items() for one in secrets_of(name, schema_of(kind)))
        self._bind = binder(function, own)
        self.parameters = tuple(self._types)
        self._defaults = {one.name: one.default for one in own if one.default is not Parameter.empty}
        self._by_name = all(parameter.kind in NAMED for parameter in self._parameters)

    def dump(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, refer: Refer | None = None) -> str:
        """Return one call's arguments as a JSON object that is proved to load equal. Omitted defaults are left out.

        ``refer`` returns the reference for each uploaded file; without it there must be none. Raises TypeError, as a
        direct call does, if the arguments do not fit the signature, and UnstorableArgument or TooLarge.
        """
        given = self._bind(*args, **kwargs)
        if refer is not None:
            for name in self.files & given.keys():
                given[name] = replaced(given[name], lambda value: is_upload(type(value)), partial(refer, name))
        # Check for streams before anything is written: writing one would exhaust it.
        raw = None if any_stream(args) or any_stream(kwargs.values()) else self._json.dump(given)
        if raw is None:
            raise self._refusal(given)
        if len(raw) > ARGUMENTS_LIMIT:
            raise TooLarge(self.task, "arguments", len(raw), ARGUMENTS_LIMIT)
        return raw.decode()

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: str) -> Bound:
        """Return one call's arguments in all forms that keys are made from."""
        return Bound(args, kwargs, self._defaults | self._bind(*args, **kwargs), stored)

    def load(self, text: str) -> dict[str, Any]:
        """Return the arguments by parameter, in their annotated types, without omitted defaults. Raises Unreadable."""
        try:
            values: dict[str, Any] = self._json.load(text)
        except (ValidationError, UnicodeEncodeError) as error:
            raise Unreadable(self.task, "arguments", first_fault(error)) from error
        return values

    def spread(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of a call, from loaded arguments and injected values."""
        if self._by_name:
            return (), values
        kwargs = dict(values)
        args = self._positions(kwargs)
        for parameter in self._parameters:
            if parameter.kind is Parameter.VAR_KEYWORD:
                kwargs.update(kwargs.pop(parameter.name, {}))
        return args, kwargs

    def _positions(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """Remove and return the arguments that must be positional. Defaults fill the gaps before them."""
        rest = next((values.pop(p.name, ()) for p in self._parameters if p.kind is Parameter.VAR_POSITIONAL), ())
        kinds = POSITIONAL if rest else (Parameter.POSITIONAL_ONLY,)
        places = [parameter for parameter in self._parameters if parameter.kind in kinds]
        while places and not rest and places[-1].name not in values:
            places.pop()
        return (*(values.pop(place.name, place.default) for place in places), *rest)

    def _refusal(self, given: dict[str, Any]) -> UnstorableArgument:
        for name, value in given.items():
            json = Json(schema_of(self._types[name]))
            if fault := json.fault(value):
                refused = RefusedArgument if may_be_sent(value) or json.breaks_rule(value) else UnstorableArgument
                return refused(self.task, name, fault)
        return UnstorableArgument(self.task, ", ".join(given), CHANGED)


class ResultCodec:
    """The codec for a task function's result, by its return annotation; without a usable one, plain JSON only."""

    def __init__(self, function: Callable[..., Any], *, name: str) -> None:
        self._task = name
        try:
            schema = schema_of(resolved(function, RETURN, signature(function).return_annotation))
            self._json = Json(schema)
        except UNUSABLE:
            schema = schema_of(Any)
            self._json = Json(schema)
        self.secrets = secrets_of(RETURN, schema)

    def dump(self, value: Any) -> str | None:
        """Return JSON text that is proved to load equal, None for None. Raises UnstorableResult or TooLarge."""
        if value is None:
            return None
        raw = None if is_stream(value) else self._json.dump(value)
        if raw is None:
            raise UnstorableResult(self._task, self._json.fault(value) or CHANGED)
        if len(raw) > RESULT_LIMIT:
            raise TooLarge(self._task, "result", len(raw), RESULT_LIMIT)
        return raw.decode()

    def load(self, text: str | None) -> Any:
        """Return the result in its annotated type. Raises UnstorableResult if it was not stored, or Unreadable."""
        if text is None:
            if not self._json.takes(None):
                raise UnstorableResult(
                    self._task,
                    "no value of its type is stored: the function returned None, another type, or too large a value",
                )
            return None
        try:
            return self._json.load(text)
        except (ValidationError, UnicodeEncodeError) as error:
            raise Unreadable(self._task, "result", first_fault(error)) from error
