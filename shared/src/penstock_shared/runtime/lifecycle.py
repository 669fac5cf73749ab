"""A service's life: start, be ready, drain on SIGTERM or SIGINT, stop. The same for all five."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.http_server import HttpServer
from penstock_shared.runtime.settings import ServiceSettings
from penstock_shared.runtime.telemetry import configure_logging, log

EXIT_FAILED: Final = 1
_GC_NEW_OBJECTS: Final = 10_000


class Service(Protocol):
    """What `run` needs of an app: the composition root of a service."""

    @property
    def name(self) -> str:
        """The service's name."""
        ...

    @property
    def settings(self) -> ServiceSettings:
        """What it was told."""
        ...

    async def start(self) -> None:
        """Connect, subscribe, begin to work. Raises PenstockError when it cannot."""
        ...

    def problems(self) -> list[str]:
        """Why it is not ready; empty when it is."""
        ...

    async def drain(self) -> None:
        """Take nothing new, finish or hand back what is running."""
        ...

    async def stop(self) -> None:
        """Close everything."""
        ...


@runtime_checkable
class Degradable(Protocol):
    """A service that goes on with less than everything: ready, and it says what is missing."""

    def degradation(self) -> dict[str, str]:
        """What `/readyz` tells besides: `mode`, and `why`."""
        ...


class _Probe:
    """`/livez`, `/readyz`, `/startupz` and `/metrics` of one process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.started = False
        self.draining = False
        self.app = Starlette(
            routes=[
                Route("/livez", self._live),
                Route("/startupz", self._startup),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
            ]
        )

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"status": "alive", "service": self._service.name})

    async def _startup(self, _: Request) -> Response:
        return JSONResponse({"started": self.started}, 200 if self.started else 503)

    async def _ready(self, _: Request) -> Response:
        problems = ["starting"] if not self.started else self._service.problems()
        if self.draining:
            problems = ["draining", *problems]
        told: dict[str, object] = {"ready": not problems, "problems": problems}
        if isinstance(self._service, Degradable):
            told |= self._service.degradation()
        return JSONResponse(told, 503 if problems else 200)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def serve(service: Service) -> int:
    """Run `service` until a signal; returns the exit status."""
    settings = service.settings
    configure_logging(service.name, settings.instance, settings.log_level)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    probe = _Probe(service)
    ops = HttpServer(probe.app, settings.ops_host, settings.ops_port, http="h11", ws="none")
    try:
        await ops.start()
        await service.start()
        _spare_what_stays()
        probe.started = True
        log().info("service.started", ops_port=ops.port)
        await stopping.wait()
        probe.draining = True
        log().info("service.draining")
        await asyncio.wait_for(service.drain(), settings.drain_grace_s)
    except PenstockError as error:
        log().error("service.failed", code=error.code, message=error.message)
        return EXIT_FAILED
    except TimeoutError:
        log().warning("service.drain_timed_out", grace_s=settings.drain_grace_s)
    finally:
        await service.stop()
        await ops.stop(0.2)
        log().info("service.stopped")
    return 0


def _spare_what_stays() -> None:
    """Keep modules, schemas and mirrors out of every later garbage collection.

    They are most of the heap and never die; what requests leave behind is mostly freed by its
    reference counts, so collections may be rarer as well.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_NEW_OBJECTS, 20, 50)


def run(create: Callable[[], Service]) -> None:
    """`__main__` of every service: build it, serve it on uvloop, exit with its status."""
    sys.exit(uvloop.run(serve(create())))
