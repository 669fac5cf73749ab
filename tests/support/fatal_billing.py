"""`python -m tests.support.fatal_billing <before|after> <n> <victim> <pattern>`: billing.

Right before, or right after, the n-th statement to PostgreSQL that matches the pattern, the victim
(a process id; 0: billing itself) is killed. Nothing else differs: what it did up to then was done
as in production, and what it was about to do is not. With n = 0 nobody is killed.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from asyncpg.connection import Connection

from penstock_billing.app import create_app
from penstock_billing.settings import Settings
from penstock_shared.runtime.lifecycle import run
from penstock_shared.runtime.settings import load_settings


def _make_fatal(moment: str, at: int, victim: int, pattern: str) -> None:
    counted, meant = itertools.count(1), re.compile(pattern)

    def fatal(plainly: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def statement(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            last = bool(meant.search(query)) and next(counted) == at
            if last and moment == "before":
                os.kill(victim or os.getpid(), signal.SIGKILL)
            done = await plainly(connection, query, *args, **options)
            if last and moment == "after":
                os.kill(victim or os.getpid(), signal.SIGKILL)
            return done

        return statement

    # What has arguments goes through the one, what has none (COMMIT) through the other alone.
    Connection._do_execute = fatal(Connection._do_execute)
    Connection.execute = _without_arguments(Connection.execute, fatal(Connection.execute))


def _without_arguments(
    plainly: Callable[..., Awaitable[Any]], fatal: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def execute(connection: Any, query: str, *args: Any, **options: Any) -> Any:
        return await (plainly if args else fatal)(connection, query, *args, **options)

    return execute


if __name__ == "__main__":
    _make_fatal(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    run(lambda: create_app(load_settings(Settings)))
