"""Customers and payment methods.

https://developer.paypal.com/braintree/docs/reference/request/customer/create and
https://developer.paypal.com/braintree/docs/reference/request/payment-method/create.
"""

from __future__ import annotations

import re
from typing import Final

from tests.support.braintree_fake.books import Books
from tests.support.braintree_fake.refusals import invalid, unverified
from tests.support.braintree_fake.wire import Members

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}\Z")
"""Letters, digits, hyphens and underscores, 36 at most; `all` and `new` are reserved."""
_RESERVED: Final = frozenset({"all", "new"})
NONCES: Final = {
    "fake-valid-nonce": ("1881", None),
    "fake-valid-visa-nonce": ("1881", None),
    "fake-valid-mastercard-nonce": ("4444", None),
    "fake-processor-declined-visa-nonce": ("0119", "2000"),
    "fake-processor-declined-mastercard-nonce": ("0012", "2000"),
}
"""Last four digits, and the code with which the processor declines the card
(https://developer.paypal.com/braintree/docs/reference/general/testing#payment-method-nonces)."""
_COMPANY: Final = 255


def create_customer(books: Books, given: Members) -> Members:
    """Under an id of the caller's, if it names one."""
    identity = given.get("id") or books.new_id(9)
    if identity in books.customers:
        message = "Customer ID has already been taken."
        raise invalid("customer", "id", "91609", message)
    if not _ID.match(identity) or identity in _RESERVED:
        message = "ID is invalid (use only letters, numbers, '-', and '_')."
        raise invalid("customer", "id", "91610", message)
    if len(given.get("company") or "") > _COMPANY:
        raise invalid("customer", "company", "81601", "Company is too long.")
    customer: Members = {
        "id": identity,
        "merchant_id": books.merchant_id,
        **{name: given.get(name) for name in ("first_name", "last_name", "company", "email")},
        "created_at": books.now(),
        "updated_at": books.now(),
        "custom_fields": None,
        "credit_cards": [],
        "addresses": [],
    }
    books.customers[identity] = customer
    return {"customer": customer}


def find_customer(books: Books, identity: str) -> Members:
    """With its cards."""
    return {"customer": books.customer(identity)}


def update_customer(books: Books, identity: str, given: Members) -> Members:
    """Set what is given."""
    customer = books.customer(identity)
    customer.update(given, updated_at=books.now())
    return {"customer": customer}


def delete_customer(books: Books, identity: str) -> Members:
    """With its cards."""
    for card in books.customer(identity)["credit_cards"]:
        del books.cards[card["token"]]
    del books.customers[identity]
    return {}


def create_method(books: Books, given: Members) -> Members:
    """Keep the card behind a nonce. A nonce that a form made can be used once.

    With `verify_card` a card that the processor declines is not kept
    (https://developer.paypal.com/braintree/docs/guides/credit-cards/verifications).
    """
    if given.get("customer_id") not in books.customers:
        message = "Customer ID is invalid."
        raise invalid("payment_method", "customer_id", "93105", message)
    nonce, token = given.get("payment_method_nonce", ""), given.get("token") or books.new_id(6)
    last4, decline = _consume(books, nonce)
    if token in books.cards:
        message = "Duplicate card exists in the vault: token is taken."
        raise invalid("credit_card", "token", "91719", message)
    if not _ID.match(token):
        message = "Token is invalid (use only letters, numbers, '-', and '_')."
        raise invalid("credit_card", "token", "91718", message)
    options = given.get("options") or {}
    if decline is not None and options.get("verify_card"):
        raise unverified(decline)
    books.used_nonces.add(nonce)
    customer = books.customer(given["customer_id"])
    default = bool(options.get("make_default")) or not customer["credit_cards"]
    for other in customer["credit_cards"]:
        other["default"] = other["default"] and not default
    card = _card(books, token, customer["id"], last4, default=default)
    books.cards[token] = card
    customer["credit_cards"].append(card)
    if decline is not None:
        books.declines[token] = decline
    return {"credit_card": card}


def find_method(books: Books, token: str) -> Members:
    """One card."""
    return {"credit_card": books.card(token)}


def delete_method(books: Books, token: str) -> Members:
    """For good."""
    card = books.card(token)
    books.customer(card["customer_id"])["credit_cards"].remove(card)
    del books.cards[token]
    return {}


def _consume(books: Books, nonce: str) -> tuple[str, str | None]:
    used = nonce in books.nonces and nonce in books.used_nonces
    if used or nonce == "fake-consumed-nonce":
        message = "Cannot use a payment_method_nonce more than once."
        raise invalid("payment_method", "payment_method_nonce", "93107", message)
    known = books.nonces.get(nonce) or NONCES.get(nonce)
    if known is None:
        message = "Unknown or expired payment_method_nonce."
        raise invalid("payment_method", "payment_method_nonce", "93108", message)
    return known


def _card(books: Books, token: str, customer: str, last4: str, *, default: bool) -> Members:
    return {
        "token": token,
        "bin": "401288",
        "last_4": last4,
        "card_type": "Visa",
        "customer_id": customer,
        "default": default,
        "expired": False,
        "expiration_month": "12",
        "expiration_year": "2034",
        "unique_number_identifier": f"card{last4}",
        "created_at": books.now(),
        "updated_at": books.now(),
    }
