"""One call of a task function, as a request's buffer has it."""

import itertools
from typing import Any

from starlette.background import BackgroundTask

from afterwards.client import Client
from afterwards.core.task import NewTask
from afterwards.functions import TaskFunction
from afterwards.joining import Joining, Standing

_numbers = itertools.count()


class StoredCall(BackgroundTask):
    """One call of a task function, in its request's buffer until it is stored. Nothing runs it from here."""

    func: TaskFunction[Any, Any, Any]
    args: Any
    kwargs: Any
    stored = False
    joining: Joining | None = None  # it waits for the commit of a session

    def __init__(
        self,
        func: TaskFunction[Any, Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        client: Client,
        *,
        chained: bool,
        late: bool,
        key: str | None,
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.is_async = func.is_async
        self.id = client.new_id()
        self.written = func.written(args, kwargs, self.id, client)
        self.uploads = self.written.uploads
        self.handle = func.handle(self.id, client, stored=False)
        self.chained = chained  # comes after the request's task before it
        self.late = late  # added when nobody could be refused any more
        self.key = key  # made of the request's idempotency key
        self.number = next(_numbers)  # in the order added, whatever object it was added to

    @property
    def name(self) -> str:
        return self.func.name

    @property
    def waits_for_flush(self) -> bool:
        """Whether it is to be stored when the handler has returned."""
        return not self.stored and (self.joining is None or self.joining.standing is Standing.RELEASED)

    def new_task(self, client: Client, *, origin: str | None, after: str | None, held: bool, answered: bool) -> NewTask:
        explicit = self.func.settings.after
        return self.func.new_task(
            client,
            self.written,
            id=self.id,
            origin=origin,
            after=after if explicit is None else explicit.id,
            chained=self.chained,
            held=held,
            limited=not (self.late or answered),
            key=self.key,
        )

    def mark_stored(self, id: str) -> None:
        self.stored = True
        self.joining = None  # which holds this: a circle for the garbage collector
        self.handle.mark_stored(id)

    def mark_not_stored(self, reason: str) -> None:
        self.handle.mark_not_stored(reason)

    async def __call__(self) -> None:
        """Do nothing: the worker runs it."""
