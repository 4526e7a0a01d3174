from uuid import uuid4

import pytest

from face.fixtures import said

__all__ = ["said"]


@pytest.fixture
def url() -> str:
    """The URL of an engine that no other test uses."""
    return f"memory://{uuid4()}"
