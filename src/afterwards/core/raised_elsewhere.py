"""What a task function raised in another process, as far as text can say it."""

from afterwards.core.errors import AfterwardsError


class RaisedElsewhere(AfterwardsError):
    """Stands for what a function raised in another process. Whether it is retried was decided there, by the object."""

    retried = True

    @classmethod
    def named(cls, name: str, text: str, *, module: str, retried: bool) -> "RaisedElsewhere":
        """One that looks like the original wherever it is shown: an exception of a class of that name."""
        name = name.replace("\0", "?")  # which no class can have in its name
        error: RaisedElsewhere = type(name, (cls,), {"__module__": module})(text)
        error.retried = retried
        return error
