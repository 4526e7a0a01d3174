"""What stands for a dependency until that is resolved."""

import copy

import pytest

from afterwards.core.errors import NotInjected
from afterwards.core.injected import INJECTED, injected


def test_it_can_be_copied_and_shown_but_not_used() -> None:
    assert injected() is INJECTED
    assert repr(copy.deepcopy(INJECTED)) == "injected()"
    with pytest.raises(NotInjected, match="'execute'"):
        getattr(injected(), "execute")  # noqa: B009  # the access raises
    with pytest.raises(NotInjected, match="was called"):
        injected()()
