"""Our header parser reads what nats-py's own reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from penstock_shared.contracts.envelope import Envelope
from penstock_shared.runtime.headers import parse_header_lines

LINES = st.one_of(
    st.binary(max_size=30),
    st.tuples(
        st.sampled_from([b"ce-id", b" ce-type ", b"a b", b"\xff", b"", b"X\tY"]),
        st.sampled_from([b":", b": ", b" :\t", b""]),
        st.binary(max_size=20),
    ).map(b"".join),
)


@given(st.lists(LINES, max_size=8).map(b"\r\n".join))
def test_it_reads_what_nats_py_reads(raw: bytes) -> None:
    """Whatever comes, malformed and hostile lines included; twice, since names are remembered."""
    for _ in range(2):
        assert parse_header_lines(raw) == Client._parse_header_lines(raw)


def test_an_envelope_survives() -> None:
    """The headers of one of our events come back as they were."""
    headers = Envelope(id="x/1/ended", source="/penstock/worker/1", type="a.b.v1").headers()
    raw = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
    assert parse_header_lines(raw + b"\r\n") == headers
