"""Uploaded files among a call's arguments: where they may stand, and what stands for them in JSON."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, BinaryIO, Optional, Union

import fastapi
import pytest
import starlette.datastructures
from fastapi import File, UploadFile
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from typing_extensions import TypeAliasType

from afterwards.core.errors import (
    FileMissing,
    FileTooLarge,
    TooLarge,
    Unreadable,
    UnstorableArgument,
    UnstorableResult,
    UnusableAnnotation,
)
from afterwards.core.serialization.arguments import Codec, ResultCodec
from afterwards.core.serialization.files import StoredFile, replaced, stored_files, with_stored_files


def upload(content: bytes = b"a", name: str | None = "a.txt", kind: type[Any] = UploadFile) -> Any:
    headers = Headers({"content-type": "text/plain", "x-part": "é"})
    return kind(io.BytesIO(content), size=len(content), filename=name, headers=headers)


class Desk:
    """Gives each upload a name of its own, and remembers it."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []

    def refer(self, parameter: str, upload: Any) -> StoredFile:
        self.taken.append((parameter, upload))
        return StoredFile.of(upload, f"file-{len(self.taken)}")


def stored(id: str, name: str | None = "a.txt", size: int | None = 1) -> StoredFile:
    return StoredFile(id=id, filename=name, headers=(("content-type", "text/plain"), ("x-part", "é")), size=size)


def taking(annotation: Any) -> Codec:
    def send(value): ...

    send.__annotations__["value"] = annotation
    return Codec(send, name="send")


def refusal(codec: Codec, value: Any) -> str:
    with pytest.raises(UnstorableArgument) as caught:
        codec.dump((value,), {}, refer=Desk().refer)
    assert caught.value.parameter == "value"
    return str(caught.value)


Files = TypeAliasType("Files", list[UploadFile])
Numbers = TypeAliasType("Numbers", list[int])

a = upload()
b = upload(name=None)


@pytest.mark.parametrize(
    ("annotation", "value", "loaded"),
    [
        (UploadFile, a, stored("file-1")),
        (starlette.datastructures.UploadFile, a, stored("file-1")),
        (UploadFile | None, a, stored("file-1")),
        (UploadFile | None, None, None),
        (Optional[UploadFile], a, stored("file-1")),  # noqa: UP045
        (Union[str, UploadFile], "a", "a"),  # noqa: UP007
        (Union[str, UploadFile], a, stored("file-1")),  # noqa: UP007
        (list[UploadFile], [a, b], [stored("file-1"), stored("file-2", None)]),
        (list[UploadFile], [], []),
        (list[UploadFile] | None, [a], [stored("file-1")]),
        (tuple[UploadFile, int], (a, 1), (stored("file-1"), 1)),
        (tuple[UploadFile, ...], (a, b), (stored("file-1"), stored("file-2", None))),
        (Sequence[UploadFile], [a], [stored("file-1")]),
        (dict[str, UploadFile], {"a": a}, {"a": stored("file-1")}),
        (dict[str, list[UploadFile]], {"a": [a]}, {"a": [stored("file-1")]}),
        (Annotated[UploadFile, File()], a, stored("file-1")),
        (Annotated[UploadFile | None, File(description="A text")], None, None),
        (Annotated[list[UploadFile], File(), Field(max_length=2)], [a], [stored("file-1")]),
        (Annotated[UploadFile, "the first"] | None, a, stored("file-1")),
        (Files, [a], [stored("file-1")]),
    ],
)
def test_a_file_comes_back_as_what_stands_for_it(annotation: Any, value: Any, loaded: Any) -> None:
    codec = taking(annotation)
    assert codec.files == {"value"}
    assert codec.load(codec.dump((value,), {}, refer=Desk().refer)) == {"value": loaded}


@pytest.mark.parametrize("annotation", [int, list[str], Annotated[int, Field(gt=0)], bytes, str | None, Any, Numbers])
def test_a_function_without_files_is_known_to_have_none(annotation: Any) -> None:
    assert taking(annotation).files == frozenset()
    assert with_stored_files(annotation) is annotation


def test_the_json_says_what_the_file_was_called_and_not_what_is_in_it() -> None:
    text = taking(UploadFile).dump((upload(b"secret"),), {}, refer=Desk().refer)
    assert json.loads(text)["value"] == {
        "id": "file-1",
        "filename": "a.txt",
        "headers": [["content-type", "text/plain"], ["x-part", "é"]],
        "size": 6,
    }


def test_each_upload_is_asked_for_by_its_parameter() -> None:
    def send(first: UploadFile, n: int, *more: UploadFile, last: UploadFile | None = None, **named: UploadFile): ...

    codec, desk = Codec(send, name="send"), Desk()
    text = codec.dump((a, 1, b, a), {"last": b, "x": a}, refer=desk.refer)
    assert sorted(name for name, _ in desk.taken) == ["first", "last", "more", "more", "named"]
    assert {name for name, kind in desk.taken if kind is b} == {"more", "last"}
    args, kwargs = codec.spread(codec.load(text))
    assert [type(value) for value in args] == [StoredFile, int, StoredFile, StoredFile]
    assert [type(value) for value in kwargs.values()] == [StoredFile, StoredFile]
    assert codec.files == {"first", "more", "last", "named"}


def test_a_file_that_is_not_given_is_not_asked_for() -> None:
    def send(file: UploadFile | None = None): ...

    codec = Codec(send, name="send")
    assert codec.dump((), {}, refer=Desk().refer) == "{}"
    assert codec.load("{}") == {}


def test_a_subclass_of_an_upload_is_one() -> None:
    class Mine(fastapi.UploadFile):
        pass

    codec = taking(UploadFile)
    for kind in (Mine, starlette.datastructures.UploadFile):
        assert codec.load(codec.dump((upload(kind=kind),), {}, refer=Desk().refer)) == {"value": stored("file-1")}


def test_an_upload_of_unknown_size_stays_so() -> None:
    codec = taking(UploadFile)
    bare = UploadFile(io.BytesIO(b"a"))
    [found] = codec.load(codec.dump((bare,), {}, refer=Desk().refer)).values()
    assert found == StoredFile(id="file-1", filename=None, headers=(), size=None)


class Form(BaseModel):
    file: UploadFile


@dataclass
class Parcel:
    file: Any


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, upload()),
        (int, upload()),
        (str, upload()),
        (Form, Form(file=upload())),
        (Parcel, Parcel(upload())),
        (set[UploadFile], {upload()}),
        (list[Any], [upload()]),
    ],
)
def test_an_upload_is_refused_where_no_upload_is_declared(annotation: Any, value: Any) -> None:
    said = 'task "send", parameter "value": found UploadFile: an uploaded file is stored only for a parameter that is'
    assert refusal(taking(annotation), value).startswith(said)


def test_an_upload_is_refused_by_one_who_would_not_store_it() -> None:
    with pytest.raises(UnstorableArgument, match="found UploadFile"):
        taking(UploadFile).dump((a,), {})


def spooled() -> Any:
    return SpooledTemporaryFile()


@pytest.mark.parametrize("annotation", [UploadFile, UploadFile | None, Any, str])
@pytest.mark.parametrize("make", [spooled, io.BytesIO, io.StringIO])
def test_any_other_open_file_is_refused_with_what_to_pass(annotation: Any, make: Callable[[], Any]) -> None:
    with make() as file:
        said = refusal(taking(annotation), file)
    assert "an open file is closed when the task runs, pass its path, or its content as bytes" in said


@pytest.mark.parametrize("annotation", [BinaryIO, io.BytesIO])
def test_a_function_that_declares_any_other_file_is_refused_with_what_to_pass(annotation: Any) -> None:
    with pytest.raises(UnusableAnnotation, match="pass its path, or its content as bytes"):
        taking(annotation)


@pytest.mark.parametrize("value", ["a.txt", b"a", {"id": "1", "filename": None, "headers": [], "size": 1}, 5])
def test_what_is_no_upload_is_refused_as_that(value: Any) -> None:
    assert refusal(taking(UploadFile), value).endswith(": Input should be an UploadFile")


def test_what_is_stored_for_no_upload_cannot_be_read_as_one() -> None:
    with pytest.raises(Unreadable, match="value: Input should be an UploadFile"):
        taking(UploadFile).load('{"value": "a.txt"}')


def test_an_upload_is_no_result() -> None:
    def give() -> Any: ...

    with pytest.raises(UnstorableResult, match="found UploadFile: an uploaded file is stored only for a parameter"):
        ResultCodec(give, name="give").dump(a)


def test_files_are_found_wherever_they_may_stand() -> None:
    one, two, three = stored("1"), stored("2"), stored("3")
    value = {"a": [one, "x"], "b": (two, {"c": three}), "d": 1, "e": {"f"}}
    assert list(stored_files(value)) == [one, two, three]
    names = {one: "one", two: "two", three: "three"}
    changed = replaced(value, lambda found: isinstance(found, StoredFile), names.__getitem__)
    assert changed == {"a": ["one", "x"], "b": ("two", {"c": "three"}), "d": 1, "e": {"f"}}


def test_one_that_is_too_large_is_too_large() -> None:
    error = FileTooLarge("send", 'parameter "file"', 5_000, 4_096)
    assert isinstance(error, TooLarge)
    assert str(error).startswith('task "send", parameter "file": 5,000 bytes, the limit is 4,096: raise it with')
    assert (error.task, error.size, error.limit) == ("send", 5_000, 4_096)


def test_a_missing_file_is_named() -> None:
    error = FileMissing("send", "a.txt", "file-1")
    assert str(error).startswith(
        """task "send": the content of the uploaded file 'a.txt' (file-1) is not in the store"""
    )
    assert (error.task, error.id) == ("send", "file-1")
