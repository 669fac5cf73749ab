"""The fake of Braintree's gateway, asked by the real package.

The numbers of the errors are the package's own (`braintree.ErrorCodes`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import braintree
import pytest
from braintree import exceptions
from braintree.exceptions import http as http_exceptions
from tests.support import braintree_fake as fakes
from tests.support.braintree_fake import BraintreeFake, Fault, Kind
from tests.support.webhook_sink import webhook_sink

CODES = braintree.ErrorCodes
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


@pytest.fixture
def gateway(braintree_fake: BraintreeFake) -> Any:
    """The package's gateway, with a customer `acme` that pays with `card`."""
    braintree_fake.clock.freeze(NOON)
    made = braintree_fake.gateway(timeout_s=0.3)
    assert made.customer.create({"id": "acme", "company": "Acme & Söhne <1>"}).is_success
    assert _keep(made, braintree_fake.nonce(), "card").is_success
    return made


def _keep(gateway: Any, nonce: str, token: str) -> Any:
    return gateway.payment_method.create(
        {
            "customer_id": "acme",
            "payment_method_nonce": nonce,
            "token": token,
            "options": {"make_default": True, "verify_card": True},
        }
    )


def _sell(gateway: Any, amount: str = "12.34", order: str = "o1", card: str = "card") -> Any:
    return gateway.transaction.sale(
        {
            "amount": amount,
            "payment_method_token": card,
            "order_id": order,
            "options": {"submit_for_settlement": True},
        }
    )


def _codes(result: Any) -> set[str]:
    assert not result.is_success
    return {error.code for error in result.errors.deep_errors}


def _found(gateway: Any, order: str) -> list[Any]:
    return list(gateway.transaction.search(braintree.TransactionSearch.order_id == order))


def test_ids_of_customers_are_taken_once(gateway: Any) -> None:
    """https://developer.paypal.com/braintree/docs/reference/request/customer/create."""
    assert gateway.customer.find("acme").company == "Acme & Söhne <1>"
    assert _codes(gateway.customer.create({"id": "acme"})) == {CODES.Customer.IdIsInUse}
    assert _codes(gateway.customer.create({"id": "a b"})) == {CODES.Customer.IdIsInvalid}
    gateway.customer.delete("acme")
    with pytest.raises(exceptions.not_found_error.NotFoundError):
        gateway.customer.find("acme")
    with pytest.raises(exceptions.not_found_error.NotFoundError):
        gateway.payment_method.find("card")


def test_a_nonce_is_used_once_and_a_token_is_taken_once(
    gateway: Any, braintree_fake: BraintreeFake
) -> None:
    """https://developer.paypal.com/braintree/docs/guides/payment-method-nonces."""
    nonce = braintree_fake.nonce()
    assert _codes(_keep(gateway, nonce, "card")) == {CODES.CreditCard.TokenIsInUse}
    assert _keep(gateway, nonce, "second").payment_method.default
    assert not gateway.payment_method.find("card").default
    consumed = {CODES.PaymentMethod.PaymentMethodNonceConsumed}
    assert _codes(_keep(gateway, nonce, "third")) == consumed
    unknown = {CODES.PaymentMethod.PaymentMethodNonceUnknown}
    assert _codes(_keep(gateway, "tokencc_none", "third")) == unknown
    declined = _keep(gateway, braintree_fake.nonce(decline="2010"), "third")
    assert not declined.is_success
    assert declined.credit_card_verification.processor_response_code == "2010"


def test_a_sale_settles_and_is_refunded_in_parts(
    gateway: Any, braintree_fake: BraintreeFake
) -> None:
    """https://developer.paypal.com/braintree/docs/reference/request/transaction/refund."""
    sale = _sell(gateway).transaction
    assert (sale.status, str(sale.amount)) == ("submitted_for_settlement", "12.34")
    early = gateway.transaction.refund(sale.id, {"amount": "1.00"})
    assert _codes(early) == {CODES.Transaction.CannotRefundUnlessSettled}
    braintree_fake.settle()
    part = gateway.transaction.refund(sale.id, {"amount": "1.00", "order_id": "r1"}).transaction
    assert (part.type, part.order_id, part.refunded_transaction_id) == ("credit", "r1", sale.id)
    large = gateway.transaction.refund(sale.id, {"amount": "11.35"})
    assert _codes(large) == {CODES.Transaction.RefundAmountIsTooLarge}
    rest = gateway.transaction.refund(sale.id).transaction
    assert str(rest.amount) == "11.34"
    assert gateway.transaction.find(sale.id).refund_ids == [part.id, rest.id]
    done = {CODES.Transaction.HasAlreadyBeenRefunded}
    assert _codes(gateway.transaction.refund(sale.id)) == done
    assert _codes(gateway.transaction.refund(part.id)) == {CODES.Transaction.CannotRefundCredit}


def test_a_sale_can_be_taken_back_until_it_settles(
    gateway: Any, braintree_fake: BraintreeFake
) -> None:
    """https://developer.paypal.com/braintree/docs/reference/request/transaction/void."""
    first, second = _sell(gateway).transaction, _sell(gateway, order="o2").transaction
    assert gateway.transaction.void(first.id).transaction.status == "voided"
    braintree_fake.settle()
    assert _codes(gateway.transaction.void(second.id)) == {CODES.Transaction.CannotBeVoided}


def test_settlement_can_be_declined(gateway: Any, braintree_fake: BraintreeFake) -> None:
    """https://developer.paypal.com/braintree/docs/reference/general/statuses#settlement-declined."""
    sale = _sell(gateway).transaction
    braintree_fake.settle(sale.id, "settlement_declined")
    assert gateway.transaction.find(sale.id).status == "settlement_declined"


@pytest.mark.parametrize(
    ("amount", "status", "code"),
    [
        ("1999.99", "submitted_for_settlement", "1000"),
        ("2000.00", "processor_declined", "2000"),
        ("2001.50", "processor_declined", "2001"),
        ("2999.99", "processor_declined", "2999"),
        ("3000.00", "failed", "3000"),
        ("3001.00", "submitted_for_settlement", "1000"),
    ],
)
def test_amounts_that_the_sandbox_declines(
    gateway: Any, amount: str, status: str, code: str
) -> None:
    """https://developer.paypal.com/braintree/docs/reference/general/testing#transaction-amounts."""
    result = _sell(gateway, amount)
    made = result.transaction
    assert (made.status, made.processor_response_code) == (status, code)
    assert result.is_success == (code == "1000")


def test_a_card_can_begin_to_be_declined(gateway: Any, braintree_fake: BraintreeFake) -> None:
    """As a card that expires does; and end to be."""
    braintree_fake.set_decline("card", "2004")
    assert _sell(gateway).transaction.processor_response_code == "2004"
    braintree_fake.set_decline("card", None)
    assert _sell(gateway).is_success


@pytest.mark.parametrize(
    ("sale", "code"),
    [
        ({"card": "none"}, CODES.Transaction.PaymentMethodTokenIsInvalid),
        ({"amount": "0.00"}, CODES.Transaction.AmountMustBeGreaterThanZero),
        ({"amount": "1.234"}, CODES.Transaction.AmountIsInvalid),
        ({"order": "o" * 256}, CODES.Transaction.OrderIdIsTooLong),
    ],
)
def test_sales_that_are_wrong_are_refused(gateway: Any, sale: dict[str, str], code: str) -> None:
    """https://developer.paypal.com/braintree/docs/reference/general/validation-errors/all."""
    assert _codes(_sell(gateway, **sale)) == {code}


def test_the_same_sale_again_is_a_duplicate_for_a_while(
    gateway: Any, braintree_fake: BraintreeFake
) -> None:
    """Same amount, order and card within the window: rejected, and found beside the first.

    https://developer.paypal.com/braintree/articles/control-panel/transactions/duplicate-checking
    """
    assert _sell(gateway).is_success
    again = _sell(gateway).transaction
    assert (again.status, again.gateway_rejection_reason) == ("gateway_rejected", "duplicate")
    assert _sell(gateway, order="o2").is_success
    assert len(_found(gateway, "o1")) == 2
    braintree_fake.clock.advance(31)
    assert _sell(gateway).is_success


def test_a_new_sale_may_not_be_found_yet(gateway: Any, braintree_fake: BraintreeFake) -> None:
    """Search runs behind; `find` by id does not."""
    braintree_fake.books.search_lag_s = 5
    sale = _sell(gateway).transaction
    assert not _found(gateway, "o1")
    assert gateway.transaction.find(sale.id).id == sale.id
    braintree_fake.clock.advance(5)
    assert [one.id for one in _found(gateway, "o1")] == [sale.id]


_SEEN = {
    Kind.RATE_LIMIT: exceptions.too_many_requests_error.TooManyRequestsError,
    Kind.ERROR: exceptions.server_error.ServerError,
    Kind.TIMEOUT: http_exceptions.timeout_error.ReadTimeoutError,
    Kind.RESET: http_exceptions.connection_error.ConnectionError,
}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("effect", [False, True])
def test_a_fault_of_the_gateway_shows_and_has_its_effect_or_not(
    gateway: Any, braintree_fake: BraintreeFake, kind: Kind, *, effect: bool
) -> None:
    """The package cannot tell the two apart: only a search can."""
    braintree_fake.faults.plan(Fault(kind, "/transactions", effect=effect))
    with pytest.raises(_SEEN[kind]):
        _sell(gateway)
    happened = effect and kind is not Kind.RATE_LIMIT
    assert len(_found(gateway, "o1")) == happened


def test_other_keys_are_refused(gateway: Any, braintree_fake: BraintreeFake) -> None:
    """https://developer.paypal.com/braintree/docs/reference/general/exceptions: 401."""
    gateway.config.private_key = "wrong"
    with pytest.raises(exceptions.authentication_error.AuthenticationError):
        gateway.customer.find("acme")
    assert not braintree_fake.faults.struck


async def test_notices_are_signed_and_the_same_when_sent_again(
    gateway: Any, braintree_fake: BraintreeFake
) -> None:
    """https://developer.paypal.com/braintree/docs/guides/webhooks/parse: the package reads them."""
    sale = _sell(gateway).transaction
    notice = braintree_fake.notice("transaction_settled", sale.id, late_s=60)
    with webhook_sink() as sink:
        assert await notice.send(sink.url, copies=2) == [200, 200]
    assert sink.bodies[0] == sink.bodies[1]
    read = gateway.webhook_notification.parse(notice.signature, notice.payload)
    assert (read.kind, read.transaction.id) == ("transaction_settled", sale.id)
    assert read.timestamp.replace(tzinfo=UTC) == datetime(2026, 11, 10, 11, 59, tzinfo=UTC)
    with pytest.raises(exceptions.invalid_signature_error.InvalidSignatureError):
        gateway.webhook_notification.parse(notice.signature, "A" + notice.payload)
    check = braintree_fake.check_notice()
    assert gateway.webhook_notification.parse(check.signature, check.payload).kind == "check"
    assert fakes.PUBLIC_KEY in check.signature
