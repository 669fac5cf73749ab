"""Payments through Braintree.

Braintree has no idempotency keys for everybody. What makes a repetition take effect once is that
we choose the names: the customer's id, the payment method's token and the transaction's `order_id`
are UUIDs of ours, looked up before anything is made again. Between a sale and the moment when the
search knows it, Braintree's duplicate checking stands guard (same amount, order id and card:
https://developer.paypal.com/braintree/articles/control-panel/transactions/duplicate-checking);
its window should be set to at least as long as claims last, two minutes.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

import braintree

from penstock_billing.adapters.braintree_client import BraintreeAccount, BraintreeClient
from penstock_billing.adapters.braintree_notices import read_notice
from penstock_billing.ports.payments import (
    Charge,
    Notice,
    PaymentState,
    PaymentStatus,
    Provider,
    RefundOrder,
    RefundState,
)
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    SchemaError,
    UnavailableError,
)

_NAMES: Final = uuid.UUID("0f0b1f5e-3a7c-5e0d-9b4f-6b1f52a1c8d3")
_CODES: Final = braintree.ErrorCodes.Transaction
_MAX_COMPANY: Final = 255
# https://developer.paypal.com/braintree/docs/reference/general/statuses
_STATUSES: Final = {
    "settled": PaymentStatus.SUCCEEDED,
    **dict.fromkeys(
        (
            "authorization_expired",
            "failed",
            "gateway_rejected",
            "processor_declined",
            "settlement_declined",
            "voided",
        ),
        PaymentStatus.FAILED,
    ),
}
"""All others are on their way: authorizing, submitted for settlement, settling, ….."""
_NO_METHOD: Final = frozenset(
    {
        _CODES.PaymentMethodTokenIsInvalid,
        _CODES.CustomerDoesNotHaveCreditCard,
        _CODES.CustomerIdIsInvalid,
        _CODES.PaymentMethodTokenCardTypeIsNotAccepted,
    }
)
"""The tenant has to give another payment method: a decline, not a bug of ours."""
_NOT_YET: Final = frozenset(
    {_CODES.CannotRefundUnlessSettled, _CODES.CannotRefundSettlingTransaction}
)


class BraintreeGateway:
    """A `PaymentGateway`."""

    provider = Provider.BRAINTREE

    def __init__(self, client: BraintreeClient, account: BraintreeAccount) -> None:
        self._client = client
        self._account = account

    async def add_customer(self, tenant: str, name: str) -> str:
        """The tenant's customer, which is made if there is none."""
        customer = _name("customer", tenant)
        fields = {"id": customer, "company": name[:_MAX_COMPANY]}
        result = await self._client.call(self._client.sdk.customer.create, fields)
        if result.is_success or braintree.ErrorCodes.Customer.IdIsInUse in _codes(result):
            return customer
        raise _refused(result)

    async def add_method(self, customer: str, token: str) -> str:
        """Keep the payment method behind a nonce; a nonce can be used once, our token again.

        Raises:
            SchemaError: Braintree does not know the nonce, or has refused the method.
        """
        method = _name("method", token)
        fields = {
            "customer_id": customer,
            "payment_method_nonce": token,
            "token": method,
            "options": {"make_default": True, "verify_card": True},
        }
        result = await self._client.call(self._client.sdk.payment_method.create, fields)
        if result.is_success or await self._has_method(customer, method):
            return method
        msg = "Braintree did not take the payment method: ask its form for another."
        raise SchemaError(msg, code="method_refused", param="token")

    async def collect(self, charge: Charge) -> PaymentState:
        """Sell once under the payment's id. A decline is a state, not an error."""
        known = await self._sold(charge.payment_id)
        if known is not None:
            return _state(known)
        fields = {
            "amount": _amount(charge.cents),
            "payment_method_token": charge.payer.method,
            "order_id": charge.payment_id,
            # The customer is not there, and the amount varies from month to month.
            "transaction_source": "recurring",
            "options": {"submit_for_settlement": True},
        }
        if self._account.merchant_account_id is not None:
            fields["merchant_account_id"] = self._account.merchant_account_id
        result = await self._client.call(self._client.sdk.transaction.sale, fields)
        if result.transaction is not None:
            if _is_duplicate(result.transaction):
                raise _in_doubt()
            return _state(result.transaction)
        if _NO_METHOD & _codes(result):
            failure = "payment_method_invalid"
            return PaymentState(charge.payment_id, PaymentStatus.FAILED, charge.cents, failure)
        raise _refused(result)

    async def refetch(self, reference: str) -> PaymentState:
        """How a transaction stands now, with its refunds.

        Raises:
            NotFoundError: Braintree has no such transaction.
        """
        transaction = await self._find(reference)
        return _state(transaction, tuple([one async for one in self._refunds(transaction)]))

    async def refund(self, order: RefundOrder) -> RefundState:
        """Give money back once under the refund's id.

        Raises:
            ConflictError: the transaction cannot be refunded, or not by so much.
            UnavailableError: Braintree does not answer, or has not settled the transaction yet.
        """
        transaction = await self._find(order.reference)
        async for known in self._refunds(transaction):
            if known.refund_id == order.refund_id:
                return known
        fields = {"amount": _amount(order.cents), "order_id": order.refund_id}
        refund = self._client.sdk.transaction.refund
        result = await self._client.call(refund, order.reference, fields)
        if result.transaction is not None:
            return _refund_state(result.transaction, transaction)
        if _NOT_YET & _codes(result):
            msg = "Braintree refunds a transaction only when it has settled: it is tried again."
            raise UnavailableError(msg, code="not_settled")
        msg = f"Braintree refuses the refund: {result.message[:200]}"
        raise ConflictError(msg, code="refund_refused")

    def read_notice(self, headers: Mapping[str, str], body: bytes, at: datetime) -> Notice:
        """Verify a webhook.

        Raises:
            AuthenticationError: not signed by Braintree, or signed too long ago or ahead.
            SchemaError: signed, but not of the documented shape.
        """
        return read_notice(self._client.sdk, headers, body, at)

    async def _sold(self, order_id: str) -> Any:
        """The sale under that id; what was refused only because there is one is not it."""
        same = braintree.TransactionSearch.order_id == order_id
        found = await self._client.call(self._client.sdk.transaction.search, same)
        same_id = [await self._find(one) for one in found.ids]
        # A refund that is made without an order id gets that of its sale.
        sales = [one for one in same_id if one.type == "sale"]
        real = [sale for sale in sales if not _is_duplicate(sale)]
        if sales and not real:
            raise _in_doubt()
        return real[0] if real else None

    async def _refunds(self, transaction: Any) -> AsyncIterator[RefundState]:
        for one in transaction.refund_ids or ():
            yield _refund_state(await self._find(one), transaction)

    async def _find(self, reference: str) -> Any:
        return await self._client.call(self._client.sdk.transaction.find, reference)

    async def _has_method(self, customer: str, method: str) -> bool:
        try:
            found = await self._client.call(self._client.sdk.payment_method.find, method)
        except NotFoundError:
            return False
        return bool(found.customer_id == customer)


def _name(kind: str, of: str) -> str:
    """Ids are of at most 36 letters, digits, hyphens and underscores: a UUID fits."""
    return str(uuid.uuid5(_NAMES, f"{kind}\n{of}"))


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _cents(transaction: Any) -> int:
    if transaction.currency_iso_code != "USD":
        msg = "Braintree sells in another currency: name a merchant account that has US dollars."
        raise PermanentError(msg, code="currency_mismatch")
    return int(transaction.amount * 100)


def _state(transaction: Any, refunds: tuple[RefundState, ...] = ()) -> PaymentState:
    status = _STATUSES.get(transaction.status, PaymentStatus.PENDING)
    failure = _failure(transaction) if status is PaymentStatus.FAILED else None
    return PaymentState(transaction.id, status, _cents(transaction), failure, refunds)


def _refund_state(refund: Any, of: Any) -> RefundState:
    status = _STATUSES.get(refund.status, PaymentStatus.PENDING)
    ours = None if refund.order_id == of.order_id else refund.order_id
    return RefundState(refund.id, ours, status, _cents(refund))


def _failure(transaction: Any) -> str:
    """Braintree's code, such as `2001` (insufficient funds), or the status that says why."""
    if transaction.status == "processor_declined":
        return str(transaction.processor_response_code)
    if transaction.status == "gateway_rejected":
        return f"gateway_rejected:{transaction.gateway_rejection_reason}"
    return str(transaction.status)


def _is_duplicate(transaction: Any) -> bool:
    reason = transaction.gateway_rejection_reason
    return bool(transaction.status == "gateway_rejected" and reason == "duplicate")


def _in_doubt() -> UnavailableError:
    msg = "Braintree has such a sale already, and its search does not show it yet."
    return UnavailableError(msg, code="payment_in_doubt")


def _codes(result: Any) -> frozenset[str]:
    return frozenset(error.code for error in result.errors.deep_errors)


def _refused(result: Any) -> PermanentError:
    codes = ", ".join(sorted(_codes(result)))
    msg = f"Braintree refuses the request ({codes}): {result.message[:200]}"
    return PermanentError(msg, code="provider_refused")
