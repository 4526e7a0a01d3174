"""What `import afterwards` costs: nothing beyond FastAPI."""

import subprocess
import sys

PROGRAM = """
import sys
import fastapi
before = {name.partition(".")[0] for name in sys.modules}
import afterwards
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""


def test_importing_it_loads_no_package_that_fastapi_does_not_load() -> None:
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["afterwards"]


def test_importing_it_loads_no_engine() -> None:
    program = "import sys, afterwards; print(*(name for name in sys.modules if name.startswith('afterwards.engines.')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_a_worker_without_such_functions_loads_no_multiprocessing() -> None:
    program = """
import asyncio, sys
from fastapi import FastAPI
from afterwards import Afterwards

async def serve() -> None:
    app = FastAPI()
    tasks = Afterwards(app, "memory://")
    async with app.router.lifespan_context(app):
        pass

asyncio.run(serve())
print(*(name for name in sys.modules if name.startswith("multiprocessing")))
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
