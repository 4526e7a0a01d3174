"""Tracebacks as they are recorded: from the first line of user code on."""

from types import TracebackType

from afterwards.core.text import frames_of, written


def users_traceback(error: BaseException) -> str:
    """Cut our frames from the beginning of an exception's traceback, and return the rest as text. Never raises."""
    frames = _users_frames(frames_of(error))
    BaseException.with_traceback(error, frames)  # not the method of its class, which may do anything
    return written(error, frames)


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    first = frames
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith("afterwards.execution"):
        frames = frames.tb_next
    return frames or first
