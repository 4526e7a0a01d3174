"""Handles in the answers of path operations: they are written as their id, and never read."""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


class ShownAsId:
    """Base class of handles."""

    __slots__ = ()

    id: str

    def as_json(self) -> dict[str, str]:
        """Return what a path operation answers with when it returns the handle: ``{"id": ...}``."""
        return {"id": self.id}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a path operation return a handle, also within a model. It is written only, never read."""
        return core_schema.custom_error_schema(
            core_schema.is_instance_schema(cls),
            custom_error_type="task_handle",
            custom_error_message=(
                f"a {cls.__name__} cannot be read: take the id of the task as text, and ask with `await tasks.get(id)`"
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.as_json),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "title": cls.__name__,
            "type": "object",
            "properties": {"id": {"title": "Id", "type": "string", "format": "uuid"}},
            "required": ["id"],
        }
