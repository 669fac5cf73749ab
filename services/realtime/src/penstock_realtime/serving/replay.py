"""The deltas of a running request once more, for publishers who lost their subscription."""

from __future__ import annotations

from typing import Final

from penstock_realtime.ports import FrameSource
from penstock_shared.contracts.responses import DeltaFrame, decode_delta

_REPLY_BYTES: Final = 256 * 1024
"""Of the frames in one answer; the broker takes messages of 1 MiB."""


async def deltas_after(
    frames: FrameSource, tenant: str, request_id: str, after: int
) -> tuple[tuple[DeltaFrame, ...], bool]:
    """Those that RESPONSES keeps whose number is above `after`, and whether there are more.

    They stand as they were published, whichever run they are of.

    Raises:
        UnavailableError: they could not be read.
    """
    found: list[DeltaFrame] = []
    size, position, more = 0, 0, True
    while more:
        kept = await frames.kept(tenant, request_id, position)
        position, more = kept.position, kept.more
        for frame in kept.frames:
            delta = decode_delta(frame)
            if delta is None or delta.n <= after:
                continue
            size += len(frame)
            if found and size > _REPLY_BYTES:
                return tuple(found), True
            found.append(DeltaFrame.model_validate_json(frame))
    return tuple(found), False
