"""The one rule for tests whose server is not installed."""

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test because this is not installed. In continuous integration, where it has to be, fail it instead."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; in continuous integration (CI is set) no test may be skipped for that", pytrace=False)
    pytest.skip(what)
