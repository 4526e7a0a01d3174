"""Make pydantic before 2.13 build the serializers of models with secrets anew, by the changed schema."""

from typing import Any, Final

from afterwards.core.serialization.schema import revealed


class _StandIn(type):
    """The type of classes that stand in for models: they have their instances, and no prebuilt serializer."""

    stands_for: type

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.stands_for)


def with_stand_ins(node: Any) -> Any:
    """Return the schema for a serializer, with stand-ins for the classes of models that hold secrets."""
    match node:
        case dict():
            changed = {key: value if key in _OPAQUE else with_stand_ins(value) for key, value in node.items()}
            if node.get("type") in ("model", "dataclass") and _holds_secret(node["schema"]):
                changed["cls"] = _StandIn(node["cls"].__name__, (), {"stands_for": node["cls"]})
            return changed
        case list() | tuple():
            return type(node)(map(with_stand_ins, node))
    return node


def _holds_secret(node: Any) -> bool:
    match node:
        case {"function": function} if function is revealed:
            return True
        case dict():
            return any(_holds_secret(value) for key, value in node.items() if key not in _OPAQUE)
        case list() | tuple():
            return any(map(_holds_secret, node))
    return False


_OPAQUE: Final = frozenset({"cls", "default", "expected", "members", "metadata"})
