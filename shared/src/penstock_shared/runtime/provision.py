"""Creates streams and buckets: the only place that does. Safe to run at every start."""

from __future__ import annotations

import asyncio
from typing import Final

import nats.errors
import nats.js.errors
from nats.js import api

from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.streams import (
    BUCKET_MAX_AGE_S,
    STREAMS,
    Bucket,
    Retention,
    Storage,
    StreamSpec,
)
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.kv import bucket_stream, bucket_subjects
from penstock_shared.runtime.telemetry import log

_IN_USE: Final = 10058
_ATTEMPTS: Final = 50


def stream_config(spec: StreamSpec, replicas: int) -> api.StreamConfig:
    """The server's configuration of one stream."""
    return api.StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        storage=(api.StorageType.FILE if spec.storage is Storage.FILE else api.StorageType.MEMORY),
        retention=(
            api.RetentionPolicy.WORK_QUEUE
            if spec.retention is Retention.WORK_QUEUE
            else api.RetentionPolicy.LIMITS
        ),
        discard=api.DiscardPolicy.NEW if spec.discard_new else api.DiscardPolicy.OLD,
        max_age=spec.max_age_s,
        max_bytes=spec.max_bytes,
        max_msgs=-1,
        max_consumers=-1,
        max_msgs_per_subject=spec.max_messages_per_subject,
        duplicate_window=min(spec.dedup_window_s, spec.max_age_s or spec.dedup_window_s),
        num_replicas=replicas,
        allow_direct=True,
        no_ack=spec.silent,
    )


def bucket_config(bucket: Bucket, replicas: int) -> api.StreamConfig:
    """A key-value bucket's stream, as ADR-8 of NATS's architecture defines it."""
    return api.StreamConfig(
        name=bucket_stream(bucket),
        subjects=[bucket_subjects(bucket)],
        max_msgs_per_subject=1,
        max_age=BUCKET_MAX_AGE_S.get(bucket, 0.0),
        max_msgs=-1,
        max_bytes=-1,
        max_consumers=-1,
        discard=api.DiscardPolicy.NEW,
        storage=api.StorageType.FILE,
        allow_rollup_hdrs=True,
        allow_direct=True,
        deny_delete=True,
        num_replicas=replicas,
        duplicate_window=120,
    )


async def provision(broker: Broker, replicas: int) -> None:
    """Create every stream and bucket that is not there, and update what differs.

    Raises:
        UnavailableError: JetStream is not ready, or refuses.
    """
    configs = [stream_config(spec, replicas) for spec in STREAMS]
    configs += [bucket_config(bucket, replicas) for bucket in Bucket]
    await asyncio.gather(*(_ensure(broker, config) for config in configs))


async def provision_volatile(broker: Broker) -> None:
    """Recreate the memory streams, whose definition a server restart takes."""
    for spec in STREAMS:
        if spec.storage is Storage.MEMORY:
            await _ensure(broker, stream_config(spec, 1))


async def _ensure(broker: Broker, config: api.StreamConfig) -> None:
    if config.storage is api.StorageType.MEMORY:
        config.num_replicas = 1  # it holds nothing that a promise rests on
    for attempt in range(_ATTEMPTS):
        try:
            await broker.jetstream.add_stream(config)
        except nats.js.errors.APIError as error:
            if error.err_code == _IN_USE:
                await broker.jetstream.update_stream(config)
                return
            log().info("stream.not_yet", stream=config.name, code=error.err_code)
            if attempt == _ATTEMPTS - 1:
                msg = f"JetStream refuses the stream {config.name}: {error.description}"
                raise UnavailableError(msg, code="stream_refused") from error
        except (nats.errors.Error, TimeoutError):
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return
        await asyncio.sleep(0.1)
