"""The priority of a message, which each broker counts in its own way."""

from collections.abc import Mapping

from afterwards.core.options import MOST_PRIORITY

MOST = 9
"""The most urgent priority of Redis' transport is 0, the least urgent one 9. RabbitMQ's queues may have any range."""

MOST_OF_RABBITMQ = "x-max-priority"


def priority_of(priority: int, transport: str, queue: Mapping[str, object]) -> int | None:
    """Return the priority of a message. ``queue`` has the arguments that the queue is declared with.

    None where the transport has no priorities, as Amazon's SQS.
    """
    match transport:
        case "amqp":
            most = queue.get(MOST_OF_RABBITMQ)
            return _scaled(priority, most if isinstance(most, int) else MOST)
        case "redis":
            return MOST - _scaled(priority, MOST)
    return None


def _scaled(priority: int, most: int) -> int:
    """Return a priority from -100 to 100 on the scale from 0 to ``most``."""
    return round((priority + MOST_PRIORITY) * most / (2 * MOST_PRIORITY))
