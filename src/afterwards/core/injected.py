"""``injected()``, the default value of a parameter that a dependency fills."""

from typing import Any, NoReturn

from afterwards.core.errors import NotInjected


def injected() -> Any:
    """Return a placeholder for a dependency's value: ``db: Annotated[Db, Depends(get_db)] = injected()``.

    It tells type checkers that callers leave the parameter out, and keeps FastAPI's ``Annotated`` style. The return
    type is Any because it must fit every annotation.
    """
    return INJECTED


class Injected:
    """The placeholder of a dependency that is not resolved yet. Any use of it raises NotInjected."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "injected()"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python and libraries read these from every object
            raise AttributeError(name)
        raise NotInjected(f"{name!r} was read from a parameter with the default injected(), and nothing has filled it")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotInjected("a parameter with the default injected() was called, and nothing has filled it")


INJECTED = Injected()
