"""A stand-in for an exception that a task function raised in another process."""

from afterwards.core.errors import AfterwardsError


class RaisedElsewhere(AfterwardsError):
    """Stands for an exception of another process. That process decided whether it is retried (``retried``)."""

    retried = True

    @classmethod
    def named(cls, name: str, text: str, *, module: str, retried: bool) -> "RaisedElsewhere":
        """Return a stand-in whose class has the original's name and module, so that it is shown like the original."""
        name = name.replace("\0", "?")  # a class's name cannot contain it
        error: RaisedElsewhere = type(name, (cls,), {"__module__": module})(text)
        error.retried = retried
        return error
