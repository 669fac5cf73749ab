"""The fake of Stripe reads what the package writes."""

from __future__ import annotations

from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from stripe import params
from stripe._encode import _api_encode
from stripe.params import billing
from tests.support.stripe_fake.parameters import checked, decode_form

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="[]"), min_size=1, max_size=40)
VALUES = st.text(st.characters(codec="utf-8"), max_size=60)
CENTS = st.integers(-(10**12), 10**12)


@given(payload=st.dictionaries(NAMES, VALUES, min_size=1), at=st.integers(0, 2**40))
def test_a_meter_event_arrives_as_it_was_sent(payload: dict[str, str], at: int) -> None:
    """Any payload, in any writing: nothing is lost or made up on the way (I2)."""
    sent = {"event_name": "usage", "payload": payload, "timestamp": at}
    read = decode_form(urlencode(list(_api_encode(sent))))
    assert checked(billing.MeterEventCreateParams, read) == sent


@given(
    metadata=st.dictionaries(NAMES, VALUES, min_size=1),
    amount=CENTS,
    period=st.tuples(CENTS, CENTS),
    expand=st.lists(st.sampled_from(["invoice", "customer"]), min_size=1, max_size=4),
)
def test_an_invoice_item_arrives_as_it_was_sent(
    metadata: dict[str, str], amount: int, period: tuple[int, int], expand: list[str]
) -> None:
    """Nested members, lists and signs keep their types."""
    sent = {
        "customer": "cus_x",
        "amount": amount,
        "metadata": metadata,
        "period": {"start": period[0], "end": period[1]},
        "expand": expand,
        "discountable": False,
    }
    read = decode_form(urlencode(list(_api_encode(sent))))
    assert checked(params.InvoiceItemCreateParams, read) == sent
