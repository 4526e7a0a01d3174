"""Let a process of Celery's start processes by ``multiprocessing``, for functions with ``run_in="process"``."""

import os
import sys
from contextlib import suppress
from multiprocessing import current_process, process, reduction
from typing import Any

from billiard.process import AuthenticationString


def find_modules_as_celery_did() -> None:
    """Put the working folder on ``sys.path``, which a new process gets a copy of.

    The script ``celery`` has it there only while it imports the module of ``-A``.
    """
    with suppress(FileNotFoundError):  # the folder was deleted
        folder = os.getcwd()
        if not {"", folder} & {*sys.path}:
            sys.path.insert(0, folder)


def allow_children() -> None:
    """Allow this process of a prefork pool to have children: billiard makes it a daemon, which may have none.

    Billiard ends the processes of its pool by the object that its main process has, so this changes nothing there.
    """
    current_process().daemon = False
    reduction.register(AuthenticationString, _reduced)


def _reduced(key: bytes) -> Any:
    """Pickle billiard's key as one of ``multiprocessing``, which writes it to its own new processes only.

    Billiard's process object is the current one in ``multiprocessing``, too, and its key refuses all but billiard.
    """
    own: Any = process
    return own.AuthenticationString(key).__reduce__()  # without types
