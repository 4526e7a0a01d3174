"""Models with secrets are written anew, also by a pydantic that has prebuilt their serializers."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import SchemaSerializer

from afterwards.core.serialization.explain import schema_of
from afterwards.core.serialization.schema import WRITTEN, stored_schema
from afterwards.core.serialization.stand_ins import with_stand_ins


class Login(BaseModel):
    name: str
    pins: list[SecretStr] = []


class Open(BaseModel):
    name: str


@dataclass
class Plain:
    pin: SecretStr


@pydantic_dataclass
class Checked:
    pin: SecretStr
    login: Login | Open | None = None


def written(kind: Any, value: Any) -> bytes:
    serializer = SchemaSerializer(with_stand_ins(stored_schema(schema_of(kind))), WRITTEN)
    return serializer.to_json(value, warnings=False, round_trip=True, by_alias=False)


def test_secrets_in_models_and_dataclasses_are_written_as_they_are() -> None:
    pin = SecretStr("1234")
    assert written(Login, Login(name="a", pins=[pin])) == b'{"name":"a","pins":["1234"]}'
    assert written(Plain, Plain(pin=pin)) == b'{"pin":"1234"}'
    assert written(Checked, Checked(pin, Login(name="a"))) == b'{"pin":"1234","login":{"name":"a","pins":[]}}'
    assert written(Open | Login, Login(name="a", pins=[pin])) == b'{"name":"a","pins":["1234"]}'


def test_a_class_without_secrets_stays_itself() -> None:
    [node] = [with_stand_ins(schema_of(Open))]
    assert node["cls"] is Open
    assert with_stand_ins(stored_schema(schema_of(Login)))["cls"] is not Login


def test_the_model_itself_still_masks_its_secrets() -> None:
    written(Login, Login(name="a"))
    assert b"1234" not in TypeAdapter(Login).dump_json(Login(name="a", pins=[SecretStr("1234")]))
