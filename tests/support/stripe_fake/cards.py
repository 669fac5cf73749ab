"""Payment methods, with Stripe's test cards (https://docs.stripe.com/testing)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stripe import params
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.customers import living, payer
from tests.support.stripe_fake.failures import Failure, refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object, merge_metadata


@dataclass(frozen=True)
class Card:
    """How a test card behaves: the code of its decline when it is attached, and when charged."""

    last4: str
    attach: str | None = None
    charge: str | None = None
    refund: str | None = None


TEST_CARDS: Final = {
    "pm_card_visa": Card("4242"),
    "pm_card_mastercard": Card("4444"),
    "pm_card_chargeDeclined": Card("0002", attach="generic_decline", charge="generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": Card(
        "9995", attach="insufficient_funds", charge="insufficient_funds"
    ),
    "pm_card_chargeCustomerFail": Card("0341", charge="generic_decline"),
    "pm_card_authenticationRequired": Card("3184", charge="authentication_required"),
    "pm_card_pendingRefund": Card("7726", refund="pending"),
    "pm_card_refundFail": Card("5126", refund="failed"),
}
"""By the ids that https://docs.stripe.com/testing lists. An attached one gets an id of its own."""


def declined(code: str, *, charge: str | None = None) -> Failure:
    """402 (https://docs.stripe.com/declines/codes)."""
    more = {"charge": charge} if charge else {}
    if code == "authentication_required":
        message = "Your card was declined. This transaction requires authentication."
        more["decline_code"] = code
        return Failure(402, message, code, kind="card_error", more=more)
    message = "Your card was declined."
    if code == "insufficient_funds":
        message = "Your card has insufficient funds."
    more["decline_code"] = code
    return Failure(402, message, "card_declined", kind="card_error", more=more)


def known(account: Account, identity: str, param: str = "payment_method") -> Object:
    """A payment method by its id; a test card's id makes one."""
    if (card := TEST_CARDS.get(identity)) is not None:
        return _make(account, card)
    return account.store.get("payment_method", identity, param)


def attach(account: Account, call: Call) -> Object:
    """To a customer, for good: a detached one cannot be attached again."""
    given = call.params
    customer = payer(account, given)
    method = known(account, call.id, "id")
    if method["customer"] not in {None, customer["id"]} or method.get("_detached"):
        message = "The payment method you provided has already been attached to a customer, or was "
        message += "detached from one. It may not be used again."
        raise refused(message, code="payment_method_unexpected_state", param="payment_method")
    if code := method["_card"].attach:
        raise declined(code)
    method["customer"] = customer["id"]
    account.emit("payment_method.attached", method)
    return public(method)


def detach(account: Account, call: Call) -> Object:
    """From its customer; it can never be charged again."""
    method = account.store.get("payment_method", call.id)
    if method["customer"] is None:
        raise refused("The payment method you provided is not attached to a customer.")
    owner = living(account, method["customer"])
    if owner["invoice_settings"]["default_payment_method"] == method["id"]:
        owner["invoice_settings"]["default_payment_method"] = None
    method.update(customer=None, _detached=True)
    account.emit("payment_method.detached", method)
    return public(method)


def create(account: Account, call: Call) -> Object:
    """From a card token (`tok_visa`), as the tenant's browser would have made it."""
    given = call.params
    token = given.get("card", {}).get("token", "")
    card = TEST_CARDS.get(token.replace("tok_", "pm_card_", 1))
    if given.get("type") != "card" or card is None:
        raise Failure(501, "The fake makes payment methods of type card with a test token only.")
    method = _make(account, card)
    method["metadata"] = merge_metadata({}, given.get("metadata", {}))
    return public(method)


def retrieve(account: Account, call: Call) -> Object:
    """One of them."""
    return public(account.store.get("payment_method", call.id))


def list_all(account: Account, call: Call) -> Object:
    """A customer's."""
    return page(call, account.store.all("payment_method"))


def list_of_customer(account: Account, call: Call) -> Object:
    """The same by the customer's own address."""
    customer = living(account, call.id)
    methods = account.store.all("payment_method")
    return page(call, (one for one in methods if one["customer"] == customer["id"]))


def _make(account: Account, card: Card) -> Object:
    return account.store.put(
        {
            "id": account.store.new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {"address": {}, "email": None, "name": None, "phone": None},
            "card": {
                "brand": "mastercard" if card.last4 == "4444" else "visa",
                "country": "US",
                "exp_month": 12,
                "exp_year": 2034,
                "fingerprint": f"fp{card.last4}",
                "funding": "credit",
                "last4": card.last4,
            },
            "created": account.now(),
            "customer": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
            "_card": card,
        }
    )


_METHODS: Final = "/v1/payment_methods"
RULES: Final = (
    Rule("POST", _METHODS, create, params.PaymentMethodCreateParams, "type card metadata"),
    Rule("GET", _METHODS, list_all, params.PaymentMethodListParams),
    Rule("GET", _METHODS + "/{id}", retrieve, params.PaymentMethodRetrieveParams),
    Rule("POST", _METHODS + "/{id}/attach", attach, params.PaymentMethodAttachParams, "customer"),
    Rule("POST", _METHODS + "/{id}/detach", detach, params.PaymentMethodDetachParams),
    Rule(
        "GET",
        "/v1/customers/{id}/payment_methods",
        list_of_customer,
        params.CustomerPaymentMethodListParams,
    ),
)
