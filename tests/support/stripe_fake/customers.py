"""Customers (https://docs.stripe.com/api/customers)."""

from __future__ import annotations

from typing import Any, Final

from stripe import params
from tests.support.stripe_fake.account import Account, changes, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.ending import end_all
from tests.support.stripe_fake.failures import invalid
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object, merge_metadata

_PLAIN: Final = ("name", "email", "description", "phone", "address", "shipping")


def create(account: Account, call: Call) -> Object:
    """A new one. Every call makes another: an email is no key."""
    given = call.params
    if test_clock := given.get("test_clock"):
        account.store.get("test_helpers.test_clock", test_clock, "test_clock")
    customer = account.store.put(
        {
            "id": account.store.new_id("cus", 14),
            "object": "customer",
            **dict.fromkeys(_PLAIN),
            "balance": given.get("balance", 0),
            "created": account.now(test_clock),
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "discount": None,
            "invoice_prefix": account.store.new_id("", 8)[1:].upper(),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": False,
            "metadata": {},
            "next_invoice_sequence": 1,
            "preferred_locales": [],
            "tax_exempt": "none",
            "test_clock": test_clock,
        }
    )
    _assign(account, customer, given)
    account.emit("customer.created", customer)
    return public(customer)


def retrieve(account: Account, call: Call) -> Object:
    """A deleted one is answered, too, as `{"deleted": true}`."""
    return public(account.store.get("customer", call.id))


def update(account: Account, call: Call) -> Object:
    """Sets what is given."""
    customer = living(account, call.id, "id")
    before = public(customer)
    _assign(account, customer, call.params)
    if previous := changes(before, public(customer)):
        account.emit("customer.updated", customer, previous)
    return public(customer)


def delete(account: Account, call: Call) -> Object:
    """Deleted for good, its subscriptions with it; it stays readable as a stub."""
    customer = living(account, call.id, "id")
    identity = customer["id"]
    end_all(account, identity)
    account.emit("customer.deleted", customer)
    account.store.put({"id": identity, "object": "customer", "deleted": True})
    return {"id": identity, "object": "customer", "deleted": True}


def list_all(account: Account, call: Call) -> Object:
    """Those on a test clock are listed only when the clock is named."""
    wanted = call.params.get("test_clock")
    found = (
        one
        for one in account.store.all("customer")
        if not one.get("deleted") and one["test_clock"] == wanted
    )
    return page(call, found, handled=["test_clock"])


def payer(account: Account, given: dict[str, Any]) -> Object:
    """The customer that a request must name (`customer_account` is of another API)."""
    if "customer" not in given:
        message = "Missing required param: customer."
        raise invalid(message, code="parameter_missing", param="customer")
    return living(account, given["customer"])


def living(account: Account, identity: str, param: str = "customer") -> Object:
    """A customer that was not deleted, as a parameter must name it."""
    customer = account.store.get("customer", identity, param)
    if customer.get("deleted"):
        return account.store.get("", identity, param)
    return customer


def _assign(account: Account, customer: Object, given: dict[str, Any]) -> None:
    for name in _PLAIN:
        if name in given:
            customer[name] = given[name] or None
    if "balance" in given:
        customer["balance"] = given["balance"]
    if "metadata" in given:
        customer["metadata"] = merge_metadata(customer["metadata"], given["metadata"])
    method = given.get("invoice_settings", {}).get("default_payment_method")
    if method:
        account.store.get("payment_method", method, "invoice_settings[default_payment_method]")
        customer["invoice_settings"]["default_payment_method"] = method


_SET: Final = "name email description phone address shipping balance metadata invoice_settings"
RULES: Final = (
    Rule("POST", "/v1/customers", create, params.CustomerCreateParams, f"{_SET} test_clock"),
    Rule("GET", "/v1/customers", list_all, params.CustomerListParams),
    Rule("GET", "/v1/customers/{id}", retrieve, params.CustomerRetrieveParams),
    Rule("POST", "/v1/customers/{id}", update, params.CustomerUpdateParams, _SET),
    Rule("DELETE", "/v1/customers/{id}", delete, params.CustomerDeleteParams),
)
