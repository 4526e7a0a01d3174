"""``injected()``: the default of a parameter that a dependency fills."""

from typing import Any, NoReturn

from afterwards.core.errors import NotInjected


def injected() -> Any:
    """Stand for what a dependency gives: ``db: Annotated[Db, Depends(get_db)] = injected()``.

    With it type checkers know that callers leave the parameter out, and FastAPI's style of ``Annotated`` aliases stays.
    The type is Any, for it has to fit every annotation.
    """
    return INJECTED


class Injected:
    """Takes the place of a dependency until that is resolved. Any use of it raises NotInjected."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "injected()"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python and libraries ask every object for these
            raise AttributeError(name)
        raise NotInjected(f"{name!r} was asked of a parameter with the default injected(), and nothing has filled it")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotInjected("a parameter with the default injected() was called, and nothing has filled it")


INJECTED = Injected()
