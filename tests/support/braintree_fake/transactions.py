"""Sales, refunds, voids and the search for them.

https://developer.paypal.com/braintree/docs/reference/request/transaction/sale,
https://developer.paypal.com/braintree/docs/reference/request/transaction/refund and
https://developer.paypal.com/braintree/docs/reference/general/statuses#transaction.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from tests.support.braintree_fake.books import Books
from tests.support.braintree_fake.refusals import Refusal, invalid, not_done
from tests.support.braintree_fake.wire import Members

_AMOUNT: Final = re.compile(r"\d+(\.\d{1,2})?\Z")
_ORDER_ID: Final = 255
_REFUSED: Final = frozenset({"processor_declined", "gateway_rejected", "failed", "voided"})
_REFUNDABLE: Final = frozenset({"settled", "settling"})
_VOIDABLE: Final = frozenset({"authorized", "submitted_for_settlement", "settlement_pending"})
_MODELLED: Final = frozenset(
    {
        "type",
        "amount",
        "payment_method_token",
        "order_id",
        "options",
        "merchant_account_id",
        "transaction_source",
    }
)
_PAGE: Final = 50


def sale(books: Books, given: Members) -> Members:
    """Charge a card of the vault."""
    if given.get("type") != "sale" or (given.keys() - _MODELLED):
        raise Refusal(501)
    amount = _amount(given)
    if len(given.get("order_id") or "") > _ORDER_ID:
        raise invalid("transaction", "order_id", "91501", "Order ID is too long.")
    token = given.get("payment_method_token")
    if token not in books.cards:
        message = "Payment method token is invalid."
        raise invalid("transaction", "payment_method_token", "91518", message)
    account = given.get("merchant_account_id", "usd")
    if account != "usd":
        message = "Merchant account ID is invalid."
        raise invalid("transaction", "merchant_account_id", "91513", message)
    made = _new(books, "sale", amount, given.get("order_id"), books.cards[token])
    return _judge(
        books, made, submit=bool((given.get("options") or {}).get("submit_for_settlement"))
    )


def refund(books: Books, identity: str, given: Members) -> Members:
    """Give back what is left of a settled sale, or a part of it."""
    original = books.transaction(identity)
    if original["type"] == "credit":
        raise invalid("transaction", "base", "91505", "Cannot refund a refund transaction.")
    if original["status"] not in _REFUNDABLE:
        message = "Cannot refund a transaction unless it is settled."
        raise invalid("transaction", "base", "91506", message)
    left = Decimal(original["amount"]) - _refunded(books, original)
    if not left:
        message = "Transaction has already been completely refunded."
        raise invalid("transaction", "base", "91512", message)
    amount = _amount(given) if given.get("amount") else left
    if amount > left:
        message = "Refund amount is too large."
        raise invalid("transaction", "amount", "91521", message)
    order_id = given.get("order_id") or original["order_id"]
    made = _new(books, "credit", amount, order_id, original["credit_card"])
    made["refunded_transaction_id"] = identity
    original["refund_ids"].append(made["id"])
    _to(books, made, "submitted_for_settlement")
    return {"transaction": made}


def void(books: Books, identity: str) -> Members:
    """Take it back before it settles."""
    found = books.transaction(identity)
    if found["status"] not in _VOIDABLE:
        message = "Transaction can only be voided if status is authorized, submitted_for_settlement"
        raise invalid("transaction", "base", "91504", f"{message}, or settlement_pending.")
    _to(books, found, "voided")
    return {"transaction": found}


def find(books: Books, identity: str) -> Members:
    """One transaction."""
    return {"transaction": books.transaction(identity)}


def move(books: Books, identity: str, status: str) -> Members:
    """What the sandbox does on demand, and time does in production.

    https://developer.paypal.com/braintree/docs/reference/general/testing#settlement-status
    """
    found = books.transaction(identity)
    if found["status"] != "submitted_for_settlement":
        message = "Cannot simulate settlement unless it was submitted for settlement."
        raise invalid("transaction", "base", "91575", message)
    _to(books, found, status)
    return {"transaction": found}


def search_ids(books: Books, criteria: Members) -> Members:
    """The ids of those that fit; what is very new is not found yet."""
    known = books.now() - timedelta(seconds=books.search_lag_s)
    ids = [
        one["id"]
        for one in books.transactions.values()
        if one["created_at"] <= known and _fits(one, criteria)
    ]
    return {"search_results": {"page_size": _PAGE, "ids": ids}}


def search(books: Books, criteria: Members) -> Members:
    """One page: those whose ids are asked for."""
    found = [books.transaction(identity) for identity in criteria.get("ids", [])]
    return {
        "credit_card_transactions": {
            "current_page_number": 1,
            "page_size": _PAGE,
            "total_items": len(found),
            "transaction": found,
        }
    }


def _judge(books: Books, made: Members, *, submit: bool) -> Members:
    """Duplicate checking, the card's own decline, then the amounts that the sandbox declines.

    https://developer.paypal.com/braintree/articles/control-panel/transactions/duplicate-checking
    and https://developer.paypal.com/braintree/docs/reference/general/testing#transaction-amounts.
    """
    if _duplicates(books, made):
        made["gateway_rejection_reason"] = "duplicate"
        _to(books, made, "gateway_rejected")
        raise not_done("Gateway Rejected: duplicate", made)
    code = books.declines.get(made["credit_card"]["token"]) or _by_amount(Decimal(made["amount"]))
    if code is not None:
        made.update(processor_response_code=code, processor_response_text="Do Not Honor")
        made["processor_response_type"] = "soft_declined"
        _to(books, made, "failed" if code == "3000" else "processor_declined")
        raise not_done("Do Not Honor", made)
    made.update(processor_response_code="1000", processor_response_text="Approved")
    made["processor_response_type"] = "approved"
    _to(books, made, "authorized")
    if submit:
        _to(books, made, "submitted_for_settlement")
    return {"transaction": made}


def _by_amount(amount: Decimal) -> str | None:
    if Decimal(2000) <= amount < Decimal(3000):
        return str(int(amount))
    return "3000" if Decimal(3000) <= amount < Decimal(3001) else None


def _duplicates(books: Books, made: Members) -> bool:
    """The same amount, order and card within the window, of a sale that was not refused."""
    since = made["created_at"] - timedelta(seconds=books.duplicate_window_s)
    return any(
        one["amount"] == made["amount"]
        and one["order_id"] == made["order_id"]
        and one["credit_card"]["token"] == made["credit_card"]["token"]
        for one in books.transactions.values()
        if one is not made
        and one["type"] == "sale"
        and one["status"] not in _REFUSED
        and one["created_at"] > since
    )


def _refunded(books: Books, original: Members) -> Decimal:
    refunds = [books.transaction(identity) for identity in original["refund_ids"]]
    counting = (one for one in refunds if one["status"] not in {"voided", "settlement_declined"})
    return sum((Decimal(one["amount"]) for one in counting), Decimal(0))


def _amount(given: Members) -> Decimal:
    text = str(given.get("amount") or "")
    if not text:
        raise invalid("transaction", "amount", "81502", "Amount is required.")
    if not _AMOUNT.match(text):
        raise invalid("transaction", "amount", "81503", "Amount is an invalid format.")
    if not Decimal(text):
        message = "Amount must be greater than zero."
        raise invalid("transaction", "amount", "81531", message)
    return Decimal(text)


def _new(books: Books, kind: str, amount: Decimal, order_id: str | None, card: Members) -> Members:
    made: Members = {
        "id": books.new_id(8),
        "status": "authorizing",
        "type": kind,
        "amount": f"{amount:.2f}",
        "currency_iso_code": "USD",
        "merchant_account_id": "usd",
        "order_id": order_id,
        "created_at": books.now(),
        "updated_at": books.now(),
        "credit_card": card,
        "customer": {"id": card["customer_id"]},
        "gateway_rejection_reason": None,
        "processor_response_code": None,
        "processor_response_text": None,
        "processor_response_type": None,
        "refund_ids": [],
        "refunded_transaction_id": None,
        "status_history": [],
        "payment_instrument_type": "credit_card",
    }
    books.transactions[made["id"]] = made
    return made


def _to(books: Books, made: Members, status: str) -> None:
    made.update(status=status, updated_at=books.now())
    event: dict[str, Any] = {
        "timestamp": books.now(),
        "status": status,
        "amount": made["amount"],
        "user": None,
        "transaction_source": "api",
    }
    made["status_history"].append(event)


def _fits(one: Members, criteria: Members) -> bool:
    """`is` of texts, and lists of values, as far as payments need a search."""
    for name, wanted in criteria.items():
        if isinstance(wanted, dict) and wanted.keys() == {"is"}:
            if str(one.get(name) or "") != wanted["is"]:
                return False
        elif name == "ids" or (isinstance(wanted, list) and name in {"status", "type"}):
            if one["id" if name == "ids" else name] not in wanted:
                return False
        else:
            raise Refusal(501)
    return True
