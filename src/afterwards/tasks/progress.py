"""``progress``: reports the progress of a task function, with tqdm's parameters."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from sys import maxsize
from types import TracebackType
from typing import Any, Generic, Never, Self, TypeVar, overload

from afterwards.core.errors import InvalidOption
from afterwards.core.progress import Progress, as_number
from afterwards.core.text import shown, text_of
from afterwards.execution.context import TaskContext, current

T = TypeVar("T")


@overload
def progress(
    iterable: Iterable[T] | AsyncIterable[T],
    desc: str = "",
    total: float | None = None,
    *,
    unit: str = "",
    initial: float = 0,
) -> "ProgressBar[T]": ...
@overload
def progress(
    iterable: None = None, desc: str = "", total: float | None = None, *, unit: str = "", initial: float = 0
) -> "ProgressBar[Never]": ...
def progress(
    iterable: Any = None, desc: str = "", total: float | None = None, *, unit: str = "", initial: float = 0
) -> "ProgressBar[Any]":
    """Show the progress of a task in its record.

    ``async for row in progress(rows, desc="import")``, the same with ``for``, or
    ``with progress(total=n) as bar: bar.update(1)``. Progress is stored at most four times a second, and at the end.
    Of several at once, the outermost is shown. Outside a task it shows nothing, and does no harm.
    """
    if total is None:
        total = _length(iterable)
    return ProgressBar(iterable, desc=desc, total=total, unit=unit, initial=initial)


def _length(iterable: Any) -> int | None:
    """Return the number of items, if the iterable has a length."""
    try:
        return len(iterable) if isinstance(iterable, Sized) else None
    except BaseException:  # user code: showing progress must not fail because of it
        return None


def _number(name: str, value: Any) -> Any:
    try:
        return as_number(value)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"progress({name}={shown(value)}): give a number") from error


class ProgressBar(Generic[T]):
    """The iterator that ``progress`` returns. One thread at a time may update it. Raises if a count is no number."""

    def __init__(
        self,
        iterable: Iterable[T] | AsyncIterable[T] | None = None,
        *,
        desc: str = "",
        total: float | None = None,
        unit: str = "",
        initial: float = 0,
    ) -> None:
        self.n: float = _number("initial", initial)
        self.total: float | None = _number("total", total)
        self.desc = text_of(desc)
        self.unit = text_of(unit)
        self.closed = False
        self._postfix = ""
        self._iterable = iterable
        attempting = current.get()
        context = attempting.context if attempting else None
        self._context: TaskContext | None = context if context and context.show(self) else None
        self._changed()

    def update(self, n: float = 1) -> None:
        """Advance by ``n``."""
        self.n = as_number(self.n + as_number(n))
        self._changed()

    def set_description(self, desc: str | None = None) -> None:
        self.desc = "" if desc is None else text_of(desc)
        self._changed()

    def set_postfix(self, **values: object) -> None:
        """Show more values, as ``loss=0.1, errors=2``."""
        self._postfix = ", ".join(f"{name}={text_of(value)}" for name, value in values.items())
        self._changed()

    def set_postfix_str(self, text: str) -> None:
        self._postfix = text_of(text)
        self._changed()

    def close(self) -> None:
        self.closed = True
        self._changed()

    def progress(self) -> Progress:
        try:
            return Progress(done=self.n, total=self.total, description=self.desc, unit=self.unit, note=self._postfix)
        except BaseException:  # attributes may have been set to anything, and may raise anything
            return Progress(note=f"this progress cannot be displayed: {text_of(self.n)} of {text_of(self.total)}")

    def __iter__(self) -> Iterator[T]:
        if not isinstance(self._iterable, Iterable):
            raise TypeError("progress() has nothing to iterate over with `for`: write `async for`, or `with`")
        with self:
            for item in self._iterable:
                yield item
                self.update()

    async def __aiter__(self) -> AsyncIterator[T]:
        with self:
            if isinstance(self._iterable, AsyncIterable):
                async for item in self._iterable:
                    yield item
                    self.update()
            else:
                for item in self:
                    yield item

    def __len__(self) -> int:
        return min(int(self.total or 0), maxsize)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _changed(self) -> None:
        if self._context is not None:
            self._context.note()
