"""``TaskRecord`` for the parts that show tasks. The class is in ``core``, because handles return it, too."""

from afterwards.core.record import TaskRecord as TaskRecord
