"""Prometheus' text format, version 0.0.4."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One value of a metric, with its labels."""

    value: float
    labels: Mapping[str, str] = {}


class Gauge(NamedTuple):
    """A metric that goes up and down. A count that forgets, such as that of the last hour, is one."""

    name: str
    help: str
    samples: Iterable[Sample]


def exposed(gauges: Iterable[Gauge]) -> str:
    """Return metrics as text.

    >>> print(exposed([Gauge("tasks", "Stored tasks.", [Sample(2, {"queue": 'a"b'})])]), end="")
    # HELP tasks Stored tasks.
    # TYPE tasks gauge
    tasks{queue="a\\"b"} 2
    """
    return "".join(f"{line}\n" for gauge in gauges for line in _lines(gauge))


def _lines(gauge: Gauge) -> Iterable[str]:
    yield f"# HELP {gauge.name} {_escaped(gauge.help)}"
    yield f"# TYPE {gauge.name} gauge"
    for sample in gauge.samples:
        labels = ",".join(f'{name}="{_escaped(value, quoted=True)}"' for name, value in sample.labels.items())
        yield f"{gauge.name}{f'{{{labels}}}' if labels else ''} {sample.value!r}"


def _escaped(text: str, *, quoted: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quoted else escaped
