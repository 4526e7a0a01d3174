"""Encode one call of a task function, and make a task from it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from afterwards.client.client import Client
from afterwards.client.uploads import Uploads
from afterwards.core.already_called import called_already, function_of
from afterwards.core.errors import NotAFunction, NotStored, UnstorableArgument
from afterwards.core.fast_frozen import draft_of, frozen
from afterwards.core.keys import Bound, key_of
from afterwards.core.limits import ALL, UNLIMITED
from afterwards.core.options import TaskOptions
from afterwards.core.serialization.arguments import Codec
from afterwards.core.task import NewTask
from afterwards.execution.propagation import captured

_Draft = draft_of(NewTask)


class WrittenCall(NamedTuple):
    """A call in its stored form: its arguments as JSON, the files among them, its context, and its keys."""

    arguments: str
    uploads: Uploads | None = None
    context: str | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    limit_key: str = UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBuilder:
    """Encodes the calls of one task function with one set of options, and makes tasks from them."""

    name: str
    identity: str
    codec: Codec
    settings: TaskOptions
    base: TaskOptions  # the function's own settings, if `settings` are those of one call
    limited: bool  # whether the function's tasks have a limit
    function: Callable[..., Any]
    secrets: tuple[str, ...] = ()  # what is never shown of its tasks

    def write(self, args: tuple[Any, ...], kwargs: dict[str, Any], id: str, client: Client) -> WrittenCall:
        """Encode a call for storage. Raises UnstorableArgument, TooLarge, InvalidKey."""
        uploads = Uploads(self.name, id, client) if self.codec.files else None
        try:
            arguments = self.codec.dump(args, kwargs, refer=uploads.refer if uploads else None)
        except UnstorableArgument:
            self._refuse_own_call(args)
            raise
        context = captured(client.options.propagate)
        if not self.limited and not self.settings.keyed:  # the usual case
            return WrittenCall(arguments, uploads, context)
        keys = self._keys(self.codec.bound(args, kwargs, arguments)) if self.settings.keyed else {}
        unique = keys.get("unique")
        return WrittenCall(
            arguments,
            uploads,
            context,
            unique_key=unique and f"{self.identity}/{unique}",
            idempotency_key=keys.get("idempotency_key"),
            limit_key=keys.get("concurrency_key", ALL) if self.limited else UNLIMITED,
        )

    def new_task(
        self,
        client: Client,
        written: WrittenCall,
        *,
        id: str | None = None,
        origin: str | None = None,
        after: str | None = None,
        chained: bool = False,
        held: bool = False,
        limited: bool = True,
        key: str | None = None,
    ) -> NewTask:
        """Make the task of a call; with ``limited``, a full queue refuses it. ``key`` is its request's key."""
        settings = self.settings
        draft = _Draft(
            id=id or client.new_id(),
            name=self.name,
            arguments=written.arguments,
            queue=settings.queue,
            priority=settings.priority,
            overrides=None if settings is self.base else settings.overrides(self.base),
            retention=client.options.retention if settings.retention is None else settings.retention,
            origin=origin,
            after=after,
            chained=chained,
            held=held,
            wait=settings.delay or timedelta(),
            run_at=settings.run_at,
            expires=settings.expires,
            unique_key=written.unique_key,
            idempotency_key=self._own_key(own) if (own := written.idempotency_key or key) else None,
            limit_key=written.limit_key,
            rerun_after_crash=settings.rerun_after_crash,
            context=written.context,
            max_queued=client.options.most_queued(settings.queue) if limited and client.options.max_queued else None,
            secrets=self.secrets,
        )
        return frozen(draft, NewTask)

    def unlimited_task(self, client: Client, *args: Any, origin: str | None = None) -> NewTask:
        """Make the task of a call from outside a request. A full queue does not refuse it."""
        id = client.new_id()
        return self.new_task(client, self.write(args, {}, id, client), id=id, origin=origin, limited=False)

    def stored_after(self) -> str | None:
        """Return the id of the predecessor given by ``options(after=...)``. Raises NotStored."""
        after = self.settings.after
        if after is not None and not after.stored:
            raise NotStored(after.id, ", so no task can come after it")
        return None if after is None else after.id

    def _own_key(self, key: str) -> str:
        """Return the stored form of an idempotency key: two functions may use the same key."""
        return f"{self.identity}/{key}"

    def _keys(self, call: Bound) -> dict[str, str]:
        return {option: key_of(self.name, option, key, call) for option, key in self.settings.key_makers() if key}

    def _refuse_own_call(self, args: tuple[Any, ...]) -> None:
        """Raise NotAFunction for ``f.enqueue(f(1))``, whose argument is the result of a call of this function."""
        if not args or not isinstance(args[0], Coroutine):
            return
        if getattr(function_of(args[0]), "function", None) is self.function:
            raise NotAFunction(
                f'task "{self.name}": {called_already(args[0], "{0}.enqueue({0}(1))", "{0}.enqueue(1)")}'
            )
