"""The chunks of uploaded files."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of an uploaded file."""

    file: str  # the file's id, a UUID as those of tasks
    task: str  # the task whose argument it is; stored after the file
    number: int  # from 0, without a gap
    content: bytes
