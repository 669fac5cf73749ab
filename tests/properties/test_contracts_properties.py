"""Laws of the contracts: round trips, subjects that cannot be escaped, money that adds up."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import hash_api_key, looks_like_api_key, make_api_key
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import (
    keyed_request_id,
    parse_request_id,
    subject_token,
    unix_ms_of,
    uuid7,
)
from penstock_shared.contracts.requests import RequestEnded, Status, Timings
from penstock_shared.contracts.responses import (
    FinalFrame,
    decode_delta,
    encode_delta,
)
from penstock_shared.contracts.usage import Price, Usage, cost_microusd
from penstock_shared.runtime.telemetry import child_traceparent, new_traceparent, trace_id

counts = st.integers(0, 10**9)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NOW = datetime(2026, 11, 20, tzinfo=UTC)


@given(st.text(max_size=80))
def test_no_text_from_outside_escapes_its_token(text: str) -> None:
    """Wildcards, dots, blanks, control characters: never part of a subject (I8)."""
    try:
        token = subject_token(text)
    except PermanentError:
        return
    assert token == text
    assert token.isascii()
    assert not set(token) & set(".*> \t\r\n\x00")
    assert subjects.parse(subjects.submit(token)).tenant == token


@given(st.text(max_size=80))
def test_request_ids_from_outside_are_uuids_or_refused(text: str) -> None:
    """Whatever is asked for, a request subject has one canonical UUID as its last token (I8)."""
    try:
        subject = subjects.request_event("acme", text)
    except PermanentError:
        return
    assert str(uuid.UUID(subject.rpartition(".")[2])) == subject.rpartition(".")[2]


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_carries_its_time_and_sorts_by_it(unix_ms: int, noise: bytes) -> None:
    """RFC 9562 §5.7: version, variant and the milliseconds are where they belong."""
    made = uuid.UUID(uuid7(unix_ms, lambda _: noise))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert unix_ms_of(str(made)) == unix_ms
    assert parse_request_id(f"resp_{made.hex}") == str(made)


@given(st.text(), st.text(), st.text(), st.text())
def test_idempotency_keys_are_of_their_tenant(a: str, b: str, x: str, y: str) -> None:
    """The same key of the same tenant is the same request, of another tenant it is not (I8)."""
    tenants = [f"t{t.encode().hex()}"[:60] for t in (a, b)]
    same = keyed_request_id(tenants[0], x) == keyed_request_id(tenants[1], y)
    assert same == ((tenants[0], x) == (tenants[1], y))


@given(st.integers(1, 9), st.integers(0, 10**6), TEXT)
def test_delta_frames_round_trip_without_parsing(attempt: int, n: int, text: str) -> None:
    """A delta is valid JSON, and its text passes through as the JSON literal that it is (I6)."""
    run = str(uuid.UUID(int=n))
    frame = encode_delta(attempt, run, n, text)
    assert json.loads(frame)["delta"] == text
    delta = decode_delta(frame)
    assert delta is not None
    assert (delta.attempt, delta.run, delta.n, delta.text) == (attempt, run, n, text)


@given(st.lists(TEXT.filter(bool), max_size=20), st.integers(0, 25))
def test_a_final_frame_fills_any_lost_tail(deltas: list[str], start: int) -> None:
    """From any delta on, the offsets in the terminal give back what a client missed (I6)."""
    ends, total = [], 0
    for delta in deltas:
        total += len(delta)
        ends.append(total)
    request = str(uuid.UUID(int=1))
    ended = RequestEnded(
        request_id=request,
        tenant="acme",
        key_id="k",
        data_subject="u",
        model="m",
        attempt=1,
        run=request,
        status=Status.COMPLETED,
        reason="stop",
        usage=Usage(input_tokens=1, output_tokens=len(deltas)),
        price=Price(input_microusd_per_1k=0, output_microusd_per_1k=0),
        output=None,
        delta_ends=tuple(ends),
        timings=Timings(queued_ms=0, first_token_ms=None, total_ms=0),
        routed_at=NOW,
        ended_at=NOW,
    )
    frame = FinalFrame.from_terminal(ended, "".join(deltas))
    assert FinalFrame.model_validate_json(frame.model_dump_json()) == frame
    assert decode_delta(frame.model_dump_json().encode()) is None
    offset = frame.offset_after(start - 1)
    if start > len(deltas):
        assert offset is None
    else:
        assert offset is not None
        assert frame.text[offset:] == "".join(deltas[start:])


@given(counts, counts, counts, counts)
def test_cost_is_exact_to_half_a_microdollar(i: int, o: int, pi: int, po: int) -> None:
    """Integer money, rounded half up once per attempt, never through a float (I3)."""
    cost = cost_microusd(
        Usage(input_tokens=i, output_tokens=o),
        Price(input_microusd_per_1k=pi, output_microusd_per_1k=po),
    )
    assert -500 <= i * pi + o * po - cost * 1000 < 500


@given(st.binary(min_size=24, max_size=24), st.integers(4, 41), st.sampled_from("09Azx-"))
def test_api_keys_refuse_typos(noise: bytes, position: int, other: str) -> None:
    """A key verifies; with one character changed it is refused before any look-up."""
    key = make_api_key(lambda _: noise)
    assert looks_like_api_key(key)
    changed = key[:position] + other + key[position + 1 :]
    assert looks_like_api_key(changed) == (changed == key)
    assert key not in hash_api_key(key)


@given(st.one_of(st.none(), st.text(), st.binary(min_size=24, max_size=24)))
def test_trace_context_survives_any_parent(parent: str | bytes | None) -> None:
    """A child keeps its parent's trace; a hostile parent starts a new one."""
    given_parent = new_traceparent(lambda n: parent[:n]) if isinstance(parent, bytes) else parent
    child = child_traceparent(given_parent)
    assert trace_id(child) is not None
    if trace_id(given_parent) not in {None, "0" * 32}:
        assert trace_id(child) == trace_id(given_parent)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=6))
def test_hostile_headers_are_refused_not_crashed_on(headers: dict[str, str]) -> None:
    """Whatever headers arrive: an envelope, or a typed refusal."""
    with pytest.raises(PermanentError):
        Envelope.from_headers(headers)


@given(st.text(min_size=1, max_size=50), st.booleans())
def test_envelopes_round_trip_in_any_case(event_id: str, shout: bool) -> None:  # noqa: FBT001
    """Binary-mode headers read back, also when a client capitalises their names."""
    envelope = Envelope(id=event_id, source="/x", type="t.v1", time=NOW)
    headers = {k.upper() if shout else k: v for k, v in envelope.headers().items()}
    assert Envelope.from_headers(headers) == envelope
