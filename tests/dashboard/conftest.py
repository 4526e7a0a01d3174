import pytest

from dashboard.fixtures import house, http, store

__all__ = ["house", "http", "store"]

ON_BOTH = ("test_api", "test_schedules", "test_secrets", "test_stream")
"""The modules whose tests run on a PostgreSQL server, too."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_BOTH:
        server = pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))
        metafunc.parametrize("store", ["sqlite", server], indirect=True)
