"""``chain``: calls that are stored together, each to run when the one before it has succeeded."""

from typing import Any

from afterwards.client.handle import TaskHandle
from afterwards.client.installations import the_client
from afterwards.core.errors import InvalidOption
from afterwards.tasks.function import Call
from afterwards.tasks.several import SeveralCalls, check_calls
from afterwards.tasks.wrapped import enqueues


@enqueues("await chain(...)")
async def chain(*calls: Call[Any]) -> list[TaskHandle[Any]]:
    """Store calls, all or none: ``await chain(resize.call(photo), publish.call(photo))``. Return handles in this order.

    Each begins when the one before it has succeeded. When one fails for good, is cancelled or expires, its successors
    are cancelled, and their records name that task. ``options(after=...)`` of the first makes all of them successors
    of another task. Raises what ``enqueue`` raises.
    """
    check_calls(calls, "chain({})")
    several = SeveralCalls(the_client("a chain"))
    for call in calls:
        if (
            call.function.has_session
            or call.function.has_connection
            or (several.tasks and call.function.settings.after is not None)
        ):
            raise InvalidOption(
                f"chain: {call.function.name} has the option session, connection or after: remove it; only the first "
                "call may have after"
            )
        before = several.tasks[-1].id if several.tasks else call.function.calls.stored_after()
        several.add(call, after=before, chained=bool(several.tasks))
    return await several.store()
