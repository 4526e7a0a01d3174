"""``chain``: calls that are stored together, each to run when the one before it has succeeded."""

from typing import Any

from afterwards.client.handle import TaskHandle
from afterwards.client.installations import the_client
from afterwards.core.errors import InvalidOption
from afterwards.tasks.function import Call
from afterwards.tasks.several import SeveralCalls, check_calls


async def chain(*calls: Call[Any]) -> list[TaskHandle[Any]]:
    """Store calls, all or none: ``await chain(resize.call(photo), publish.call(photo))``. Return handles in this order.

    Each begins when the one before it has succeeded. When one fails for good, is cancelled or expires, its successors
    are cancelled, and their records name that task. ``options(after=...)`` of the first makes all of them successors
    of another task. Raises what ``enqueue`` raises.
    """
    check_calls(calls, "chain({})")
    several = SeveralCalls(the_client("a chain"))
    for call in calls:
        function = call.function
        has_after = several.tasks and function.settings.after is not None
        if function.has_session or function.has_connection or has_after:
            raise InvalidOption(
                f"{function.name} in a chain: neither `session` nor `connection` nor `after` can be set"
            )
        before = several.tasks[-1].id if several.tasks else function.calls.stored_after()
        several.add(call, after=before, chained=bool(several.tasks))
    return await several.store()
