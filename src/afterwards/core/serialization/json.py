"""The JSON codec for one type."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator

from afterwards.core.serialization.compare import is_stream, same, type_name, walk
from afterwards.core.serialization.explain import CHANGED, advice, came_back, first_fault, remedy
from afterwards.core.serialization.rules import RULES
from afterwards.core.serialization.schema import WRITTEN, stored_schema
from afterwards.core.serialization.stand_ins import with_stand_ins

# A model has its own prebuilt serializer, which masks secrets; only a newly built one follows the changed schema.
# Before 2.13, pydantic has no option for that, and uses the prebuilt one of every class that it takes for complete.
_ANEW: Final[dict[str, Any]] = {"_use_prebuilt": False} if "_use_prebuilt" in str(signature(SchemaSerializer)) else {}


class Json:
    """The JSON codec for one type. It writes only values that load equal."""

    def __init__(self, schema: Any) -> None:
        stored = stored_schema(schema)
        self._serializer = SchemaSerializer(stored if _ANEW else with_stand_ins(stored), WRITTEN, **_ANEW)
        self._validator = SchemaValidator(stored, WRITTEN, **_ANEW)
        # Return the value of a text; raises pydantic's errors. An attribute instead of a method saves a call.
        self.load: Callable[[str | bytes], Any] = partial(self._validator.validate_json, by_alias=False, by_name=True)
        # warnings="error" takes six times as long and is not needed: a value of another type does not load equal.
        self._text: Callable[..., bytes] = partial(
            self._serializer.to_json, warnings=False, round_trip=True, by_alias=False
        )

    def dump(self, value: Any) -> bytes | None:
        """Return the value as JSON, None if it would not load equal."""
        # First without a model's unset fields, which then stay unset: `model_dump(exclude_unset=True)` is how PATCH
        # is written. A default that differs each time (a new id, the time) does not come back so, and is written.
        return self._proved(value, exclude_unset=True) or self._proved(value, exclude_unset=False)

    def takes(self, value: Any) -> bool:
        """Return True if the value has the type."""
        return self._mismatch(value) is None

    def breaks_rule(self, value: Any) -> bool:
        """Return True if the value has the type, and only its contents break a rule of it, such as a minimum."""
        try:
            self._validator.validate_python(value, strict=True, by_alias=False, by_name=True)
            self.load(self._text(value, exclude_unset=False))  # a model that exists is not validated again
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            return all(fault["type"] in RULES for fault in faults)
        except PydanticSerializationError:
            return False
        return False

    def fault(self, value: Any) -> str | None:
        """Return why the value cannot be stored and what to do, None if it can be stored. It never shows a value."""
        reason = self._reason(value)
        if reason is None:
            return None
        for part in walk(value):
            if advised := advice(type(part)):
                return f"found {type_name(part)}: {advised}"
        return f"found {type_name(value)}: {reason}"

    def _reason(self, value: Any) -> str | None:
        if any(map(is_stream, walk(value))):
            return CHANGED
        if self.dump(value):
            return None
        change = self._change(value)
        if change.startswith(CHANGED):
            return change
        reason, hint = self._mismatch(value) or change, remedy(value)
        return reason if reason.endswith(hint) else reason + hint

    def _change(self, value: Any) -> str:
        try:
            return came_back(value, self.load(self._text(value, exclude_unset=False)))
        except (PydanticSerializationError, ValidationError) as error:
            return first_fault(error)

    def _proved(self, value: Any, *, exclude_unset: bool) -> bytes | None:
        try:
            raw = self._text(value, exclude_unset=exclude_unset)
            return raw if same(value, self.load(raw)) else None
        except (PydanticSerializationError, ValidationError):
            return None

    def _mismatch(self, value: Any) -> str | None:
        """Return how the value differs from its annotation, None if it does not."""
        try:
            self._validator.validate_python(value, strict=True, by_alias=False, by_name=True)
        except ValidationError as error:
            return first_fault(error)
        return None
