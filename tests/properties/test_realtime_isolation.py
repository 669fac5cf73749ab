"""No tenant reads, follows, cancels or deletes another's response, whatever id it sends (I8)."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.ports import FrameFeed, ResponseFacts
from penstock_realtime.serving.following import Sources
from penstock_realtime.serving.lookup import Lookup
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import NotFoundError, PenstockError, PermanentError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.requests import (
    Decision,
    RequestEnded,
    RequestFact,
    RequestRouted,
    Sampling,
    Status,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OPERATIONS = ("facts", "response", "follow", "state", "cancel", "delete")


class TouchedError(Exception):
    """Something of the owner's was opened, listened to or commanded."""


@dataclass
class World:
    """EVENTS and the store; an id that were a wildcard would find what it matches."""

    facts: dict[str, list[RequestFact]] = field(default_factory=dict)
    kept: dict[tuple[str, str], ResponseFacts] = field(default_factory=dict)

    def _found(self, tenant: str, request_id: str) -> list[RequestFact]:
        pattern = subjects.request_event(tenant, request_id).replace(">", "*")
        return next((f for s, f in self.facts.items() if fnmatch.fnmatchcase(s, pattern)), [])

    async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
        found = self._found(tenant, request_id)
        return cast("RequestRouted", found[0]) if found else None

    async def last_fact(self, tenant: str, request_id: str) -> RequestFact | None:
        return next(reversed(self._found(tenant, request_id)), None)

    async def deleted(self, tenant: str, request_id: str) -> bool:
        del tenant, request_id
        return False

    async def get(self, tenant: str, request_id: str) -> ResponseFacts | None:
        return self.kept.get((tenant, request_id))

    async def open(self, *_: Any) -> FrameFeed:
        raise TouchedError

    async def cancel(self, *_: Any) -> None:
        raise TouchedError

    async def delete(self, *_: Any) -> None:
        raise TouchedError

    def now(self) -> datetime:
        return NOW

    def lookup(self) -> Lookup:
        world = cast("Any", self)
        sources = Sources(frames=world, facts=world, vault=world, clock=world)
        return Lookup(sources, world, world, world, timedelta(days=30))


def facts(tenant: str, request_id: str) -> ResponseFacts:
    routed = RequestRouted(
        request_id=request_id,
        tenant=tenant,
        key_id="key_1",
        data_subject="somebody",
        lane=Lane.STANDARD,
        attempt=1,
        decision=Decision(policy="p", model="m", probability=1.0, reason="r", features={}),
        price=Price(input_microusd_per_1k=1, output_microusd_per_1k=1),
        sampling=Sampling(),
        content="1.c2VhbGVk",
        accepted_at=NOW,
        deadline=NOW,
        store=True,
    )
    ended = RequestEnded.unstarted(routed, NOW, status=Status.CANCELLED, reason="cancelled")
    return ResponseFacts(routed, ended)


async def attempt(lookup: Lookup, operation: str, tenant: str, raw: str) -> None:
    """What each door does with an id: parse it, then ask."""
    request_id = parse_request_id(raw)
    more = ("key_2",) if operation == "delete" else ()
    await getattr(lookup, operation)(tenant, request_id, *more)


names = st.from_regex(r"[a-z0-9](?:[a-z0-9_-]{0,20}[a-z0-9])?", fullmatch=True)
ids = st.uuids().map(str)


def spellings(request_id: str) -> st.SearchStrategy[str]:
    """Ways to write an id, and what is none."""
    plain = request_id.replace("-", "")
    others = ("*", ">", f"{request_id}.>", f"../{request_id}", f"{request_id}\x00", "", "resp_")
    return st.one_of(
        st.sampled_from((request_id, plain, f"resp_{plain}", f"{{{plain}}}", plain.upper())),
        st.sampled_from(others),
        st.text(max_size=60),
        ids,
    )


@given(data=st.data(), owner=names, stranger=names, request_id=ids, ended=st.booleans())
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("place", ["events", "store"])
async def test_a_stranger_finds_nothing(
    place: str,
    operation: str,
    data: st.DataObject,
    owner: str,
    stranger: str,
    request_id: str,
    ended: bool,  # noqa: FBT001
) -> None:
    """404 for every id, or 400 for what is none; nothing is opened, listened to or commanded."""
    known, world = facts(owner, request_id), World()
    if place == "events":
        subject = subjects.request_event(owner, request_id)
        world.facts[subject] = [known.routed, *([known.ended] if ended and known.ended else [])]
    else:
        world.kept[(owner, request_id)] = known
    raw = data.draw(spellings(request_id))
    if stranger == owner:
        assert await world.lookup().facts(owner, request_id)
        return
    with pytest.raises(PenstockError) as refused:
        await attempt(world.lookup(), operation, stranger, raw)
    assert type(refused.value) in {NotFoundError, PermanentError}
