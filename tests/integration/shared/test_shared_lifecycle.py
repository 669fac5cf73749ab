"""A service's life as Kubernetes sees it: probes, metrics, drain, exit status."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import sys
from pathlib import Path

import httpx

from penstock_shared.runtime.broker import Broker


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start_router(nats_url: str, place: Path, port: int) -> asyncio.subprocess.Process:
    key = place / "root.key"
    key.write_text(base64.b64encode(b"k" * 32).decode())
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock_router",
        env=clean
        | {
            "PENSTOCK_NATS_URL": nats_url,
            "PENSTOCK_ROOT_KEY_FILE": str(key),
            "PENSTOCK_OPS_PORT": str(port),
        },
        stderr=asyncio.subprocess.PIPE,
    )


async def test_probes_metrics_and_drain(broker: Broker, nats_url: str, tmp_path: Path) -> None:
    """Live before ready, ready once started, metrics in Prometheus's format, SIGTERM exits 0."""
    port = free_port()
    process = await start_router(nats_url, tmp_path, port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        async with asyncio.timeout(30):
            while True:
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.02)
        assert (await http.get("/livez")).json()["service"] == "router"
        assert (await http.get("/startupz")).status_code == 200
        assert "router_open_requests" in (await http.get("/metrics")).text
    process.send_signal(signal.SIGTERM)
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b'"event": "service.stopped"' in stderr
    assert b"penstock:" not in stderr  # no credentials in the logs


async def test_a_broker_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    """Without NATS a service exits non-zero and says which setting to look at."""
    process = await start_router(f"nats://127.0.0.1:{free_port()}", tmp_path, 0)
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"PENSTOCK_NATS_URL" in stderr
    assert b"Traceback" not in stderr


async def test_a_port_in_use_is_a_sentence(nats_url: str, tmp_path: Path) -> None:
    """A taken ops port names the port and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await start_router(nats_url, tmp_path, int(taken.getsockname()[1]))
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"is in use" in stderr
