"""Refunds (https://docs.stripe.com/api/refunds, https://docs.stripe.com/refunds)."""

from __future__ import annotations

from typing import Any, Final

from stripe import params
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.failures import invalid, refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object, merge_metadata


def create(account: Account, call: Call) -> Object:
    """Give money of a charge back, all that is left of it unless an amount is named."""
    given = call.params
    charge = _charge(account, given)
    left = charge["amount_captured"] - charge["amount_refunded"]
    if charge["status"] != "succeeded":
        raise refused(f"Charge {charge['id']} has not succeeded and cannot be refunded.")
    if left == 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise refused(message, code="charge_already_refunded")
    amount = given.get("amount", left)
    if amount > left or amount <= 0:
        message = f"Refund amount (${amount / 100:.2f}) is greater than unrefunded amount on "
        message += f"charge (${left / 100:.2f})"
        raise refused(message, param="amount")
    fate = account.store.get("payment_method", charge["payment_method"])["_card"].refund
    refund = account.store.put(
        {
            "id": account.store.new_id("re"),
            "object": "refund",
            "amount": amount,
            "charge": charge["id"],
            "created": account.now(),
            "currency": charge["currency"],
            "failure_reason": None,
            "metadata": merge_metadata({}, given.get("metadata", {})),
            "payment_intent": charge["payment_intent"],
            "reason": given.get("reason"),
            "status": "pending" if fate == "pending" else "succeeded",
            "_fate": fate,
        }
    )
    _add(charge, amount)
    account.emit("refund.created", refund)
    account.emit("charge.refunded", charge)
    return public(refund)


def settle(account: Account) -> None:
    """What the bank says days later: pending refunds succeed, those of refundFail fail.

    A failed refund's money is the account's again (https://docs.stripe.com/refunds#failed-refunds).
    """
    for refund in account.store.all("refund"):
        fate, refund["_fate"] = refund["_fate"], None
        if fate == "pending":
            refund["status"] = "succeeded"
            account.emit("refund.updated", refund, {"status": "pending"})
        elif fate == "failed":
            refund.update(status="failed", failure_reason="expired_or_canceled_card")
            _add(account.store.get("charge", refund["charge"]), -refund["amount"])
            account.emit("refund.failed", refund)


def retrieve(account: Account, call: Call) -> Object:
    """One refund."""
    return public(account.store.get("refund", call.id))


def list_all(account: Account, call: Call) -> Object:
    """All, or those of a charge or an intent."""
    return page(call, account.store.all("refund"))


def _add(charge: Object, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]


def _charge(account: Account, given: dict[str, Any]) -> Object:
    if "charge" in given:
        return account.store.get("charge", given["charge"], "charge")
    if "payment_intent" not in given:
        message = "One of the following params should be provided for this request: "
        message += "payment_intent or charge."
        raise invalid(message, code="parameter_missing")
    intent = account.store.get("payment_intent", given["payment_intent"], "payment_intent")
    if intent["latest_charge"] is None:
        raise refused("This PaymentIntent does not have a successful charge to refund.")
    return account.store.get("charge", intent["latest_charge"])


_SET: Final = "amount charge payment_intent reason metadata"
RULES: Final = (
    Rule("POST", "/v1/refunds", create, params.RefundCreateParams, _SET),
    Rule("GET", "/v1/refunds", list_all, params.RefundListParams),
    Rule("GET", "/v1/refunds/{id}", retrieve, params.RefundRetrieveParams),
)
