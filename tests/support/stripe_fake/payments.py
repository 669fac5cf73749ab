"""Payment intents and their charges (https://docs.stripe.com/payments/paymentintents/lifecycle)."""

from __future__ import annotations

from typing import Any, Final

from stripe import params
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.cards import declined, known
from tests.support.stripe_fake.customers import living
from tests.support.stripe_fake.failures import Failure, invalid, refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object, merge_metadata

LEAST_CENTS: Final = 50
"""The least that can be charged in USD (https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts)."""


def new_intent(account: Account, **members: Any) -> Object:
    """An intent that nobody has confirmed."""
    identity = account.store.new_id("pi")
    intent = account.store.put(
        {
            "id": identity,
            "object": "payment_intent",
            "amount_capturable": 0,
            "amount_received": 0,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{identity}_secret_{account.store.new_id('', 24)[1:]}",
            "confirmation_method": "automatic",
            "created": account.now(),
            "currency": "usd",
            "customer": None,
            "description": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": {},
            "next_action": None,
            "payment_method": None,
            "payment_method_types": ["card"],
            "status": "requires_payment_method",
            **members,
        }
    )
    account.emit("payment_intent.created", intent)
    return intent


def confirm(account: Account, intent: Object) -> None:
    """Move the money.

    Raises:
        Failure: 402, the card was declined; the intent waits for another payment method.
    """
    method = account.store.get("payment_method", intent["payment_method"], "payment_method")
    if method.get("_detached") or method["customer"] not in {None, intent["customer"]}:
        message = "The provided PaymentMethod was previously used or detached from a Customer, or "
        message += "belongs to another Customer, and may not be used again."
        raise refused(message, code="payment_method_unexpected_state", param="payment_method")
    code = method["_card"].charge
    charge = _charge(account, intent, method, code)
    intent["latest_charge"] = charge["id"]
    if code is None:
        intent.update(status="succeeded", amount_received=intent["amount"], last_payment_error=None)
        account.emit("charge.succeeded", charge)
        account.emit("payment_intent.succeeded", intent)
        return
    failure = declined(code, charge=charge["id"])
    error = {**failure.body()["error"], "payment_method": public(method)}
    intent.update(status="requires_payment_method", last_payment_error=error, payment_method=None)
    account.emit("charge.failed", charge)
    account.emit("payment_intent.payment_failed", intent)
    failure.more["payment_intent"] = public(intent)
    raise failure


def _charge(account: Account, intent: Object, method: Object, code: str | None) -> Object:
    paid = code is None
    return account.store.put(
        {
            "id": account.store.new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": intent["amount"] if paid else 0,
            "amount_refunded": 0,
            "captured": paid,
            "created": account.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_code": None if paid else "card_declined",
            "failure_message": None if paid else "Your card was declined.",
            "livemode": False,
            "metadata": dict(intent["metadata"]),
            "paid": paid,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "refunded": False,
            "status": "succeeded" if paid else "failed",
        }
    )


def create(account: Account, call: Call) -> Object:
    """A new intent, confirmed at once if it says so."""
    given = call.params
    if given["currency"] != "usd":
        raise Failure(501, "The fake models payments in usd only.")
    if given["amount"] < LEAST_CENTS:
        message = "Amount must be at least $0.50 usd"
        raise invalid(message, code="amount_too_small", param="amount")
    if customer := given.get("customer"):
        living(account, customer)
    intent = new_intent(
        account,
        amount=given["amount"],
        customer=customer,
        description=given.get("description"),
        metadata=merge_metadata({}, given.get("metadata", {})),
    )
    _choose(account, intent, given)
    if given.get("confirm"):
        _confirm(account, intent)
    return public(intent)


def confirm_call(account: Account, call: Call) -> Object:
    """Confirm an intent, with another payment method if one is named."""
    intent = account.store.get("payment_intent", call.id)
    if intent["status"] not in {"requires_payment_method", "requires_confirmation"}:
        raise _state(intent, "confirm")
    _choose(account, intent, call.params)
    _confirm(account, intent)
    return public(intent)


def cancel(account: Account, call: Call) -> Object:
    """Give it up: before it succeeded only."""
    intent = account.store.get("payment_intent", call.id)
    if intent["status"] in {"succeeded", "canceled"}:
        raise _state(intent, "cancel")
    intent.update(
        status="canceled",
        canceled_at=account.now(),
        cancellation_reason=call.params.get("cancellation_reason"),
    )
    account.emit("payment_intent.canceled", intent)
    return public(intent)


def retrieve(account: Account, call: Call) -> Object:
    """One intent."""
    return public(account.store.get("payment_intent", call.id))


def list_all(account: Account, call: Call) -> Object:
    """All, or a customer's."""
    return page(call, account.store.all("payment_intent"))


def retrieve_charge(account: Account, call: Call) -> Object:
    """One charge."""
    return public(account.store.get("charge", call.id))


def list_charges(account: Account, call: Call) -> Object:
    """All, or those of a customer or an intent."""
    return page(call, account.store.all("charge"))


def _choose(account: Account, intent: Object, given: dict[str, Any]) -> None:
    if method := given.get("payment_method"):
        intent["payment_method"] = known(account, method)["id"]
        intent["status"] = "requires_confirmation"


def _confirm(account: Account, intent: Object) -> None:
    if intent["payment_method"] is None:
        message = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise refused(message, code="payment_intent_unexpected_state", param="payment_method")
    confirm(account, intent)


def _state(intent: Object, act: str) -> Failure:
    message = f"You cannot {act} this PaymentIntent because it has a status of {intent['status']}."
    return refused(message, code="payment_intent_unexpected_state")


_INTENTS: Final = "/v1/payment_intents"
_SET: Final = "amount currency customer description metadata payment_method confirm off_session"
RULES: Final = (
    Rule("POST", _INTENTS, create, params.PaymentIntentCreateParams, _SET),
    Rule("GET", _INTENTS, list_all, params.PaymentIntentListParams),
    Rule("GET", _INTENTS + "/{id}", retrieve, params.PaymentIntentRetrieveParams),
    Rule(
        "POST",
        _INTENTS + "/{id}/confirm",
        confirm_call,
        params.PaymentIntentConfirmParams,
        "payment_method off_session",
    ),
    Rule("POST", _INTENTS + "/{id}/cancel", cancel, params.PaymentIntentCancelParams),
    Rule("GET", "/v1/charges", list_charges, params.ChargeListParams),
    Rule("GET", "/v1/charges/{id}", retrieve_charge, params.ChargeRetrieveParams),
)
