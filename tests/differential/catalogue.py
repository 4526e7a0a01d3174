"""All situations that the installed FastAPI knows."""

import importlib
from importlib.util import find_spec

from differential.scene import Situation

SUBJECTS = [
    "annotations",
    "arguments",
    "calls",
    "errors",
    "handlers",
    "injection",
    "middleware",
    "objects",
    "responses",
    "sessions",
    "streams",
    "timing",
    "websockets",
    "work",
]
if find_spec("fastapi.sse"):
    SUBJECTS.append("generators")

MODULES = [importlib.import_module(f"differential.situations.{subject}") for subject in SUBJECTS]
SITUATIONS = {
    thing.name: thing for module in MODULES for thing in vars(module).values() if isinstance(thing, Situation)
}
