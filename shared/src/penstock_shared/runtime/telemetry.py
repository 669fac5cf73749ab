"""Structured logs with trace and request ids, and W3C trace context through NATS headers.

Logs never carry content or secrets: events name what happened, values are ids and numbers.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

_TRACEPARENT: Final = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


def configure_logging(service: str, instance: str, level: str) -> None:
    """JSON lines on standard error, from structlog and from the standard library alike."""
    number = logging.getLevelNamesMapping()[level.upper()]

    def identify(_logger: object, _name: str, event: MutableMapping[str, Any]) -> Any:
        event["service"], event["instance"] = service, instance
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            identify,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(number, logging.WARNING),
        stream=sys.stderr,
        force=True,
        format='{"logger":"%(name)s","level":"%(levelname)s","event":"library"}',
    )


def log() -> structlog.typing.FilteringBoundLogger:
    """The logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def new_traceparent(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A new trace (W3C Trace Context, level 1, §3.2)."""
    return f"00-{random_bytes(16).hex()}-{random_bytes(8).hex()}-01"


def child_traceparent(parent: str | None, random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """The same trace with a new span; a new trace when `parent` is missing or malformed."""
    match = _TRACEPARENT.match(parent or "")
    if match is None or set(match[1]) == {"0"}:
        return new_traceparent(random_bytes)
    return f"00-{match[1]}-{random_bytes(8).hex()}-{match[3]}"


def trace_id(traceparent: str | None) -> str | None:
    """The trace's id, for logs."""
    match = _TRACEPARENT.match(traceparent or "")
    return match[1] if match else None
