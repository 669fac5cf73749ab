"""What is looked at again and again; a look that fails is logged, and the next may succeed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.telemetry import log


@contextlib.contextmanager
def tolerated(name: str) -> Iterator[None]:
    """Log what goes wrong inside, as `<name>.postponed` or, where it is a bug, `<name>.failed`."""
    try:
        yield
    except PenstockError as error:
        log().warning(f"{name}.postponed", code=error.code)
    except Exception as error:  # noqa: BLE001  it must not end the looking
        log().error(f"{name}.failed", kind=type(error).__name__, exc_info=error)


async def at_once(interval_s: float, name: str, look: Callable[[], Awaitable[object]]) -> None:
    """Look now, and then for ever: the service may have been away for long."""
    while True:
        with tolerated(name):
            await look()
        await asyncio.sleep(interval_s)


async def every(interval_s: float, name: str, look: Callable[[], Awaitable[object]]) -> None:
    """Look for ever, the first time after a pause."""
    await asyncio.sleep(interval_s)
    await at_once(interval_s, name, look)
