"""Products and prices (https://docs.stripe.com/api/products, https://docs.stripe.com/api/prices)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from stripe import params
from tests.support.stripe_fake.account import Account, changes, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.failures import Failure, invalid, refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object, merge_metadata

_DECIMALS: Final = 12


def create_product(account: Account, call: Call) -> Object:
    """Under an id of the caller's, if it names one."""
    given = call.params
    identity = given.get("id", account.store.new_id("prod", 14))
    if account.store.any(identity) is not None:
        raise refused("Product already exists.", code="resource_already_exists", param="id")
    now = account.now()
    product = account.store.put(
        {
            "id": identity,
            "object": "product",
            "active": given.get("active", True),
            "created": now,
            "default_price": None,
            "description": given.get("description"),
            "images": [],
            "livemode": False,
            "marketing_features": [],
            "metadata": merge_metadata({}, given.get("metadata", {})),
            "name": given["name"],
            "type": "service",
            "unit_label": given.get("unit_label"),
            "updated": now,
        }
    )
    account.emit("product.created", product)
    return public(product)


def create_price(account: Account, call: Call) -> Object:
    """Its amount never changes afterwards. A metered one needs a meter.

    https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing
    """
    given = call.params
    recurring = given.get("recurring")
    product = _product(account, given)
    _check_meter(account, recurring or {})
    key = given.get("lookup_key")
    _free_key(account, key, transfer=given.get("transfer_lookup_key", False))
    price = account.store.put(
        {
            "id": account.store.new_id("price"),
            "object": "price",
            "active": given.get("active", True),
            "billing_scheme": "per_unit",
            "created": account.now(),
            "currency": given["currency"],
            "livemode": False,
            "lookup_key": key,
            "metadata": merge_metadata({}, given.get("metadata", {})),
            "nickname": given.get("nickname"),
            "product": product["id"],
            "recurring": _recurring(recurring),
            "tax_behavior": "unspecified",
            "tiers_mode": None,
            "type": "one_time" if recurring is None else "recurring",
            **_amount(given),
        }
    )
    account.emit("price.created", price)
    return public(price)


def update(account: Account, call: Call) -> Object:
    """What may change of either: names, metadata, whether it is active, a price's lookup key."""
    kind = call.path.split("/")[2].removesuffix("s")
    one = account.store.get(kind, call.id)
    before, given = public(one), dict(call.params)
    given.pop("expand", None)
    _free_key(account, given.get("lookup_key"), transfer=given.pop("transfer_lookup_key", False))
    if "metadata" in given:
        given["metadata"] = merge_metadata(one["metadata"], given["metadata"])
    one.update({name: value if value != "" else None for name, value in given.items()})
    if previous := changes(before, public(one)):
        account.emit(f"{kind}.updated", one, previous)
    return public(one)


def retrieve(account: Account, call: Call) -> Object:
    """A product or a price."""
    return public(account.store.get(call.path.split("/")[2].removesuffix("s"), call.id))


def list_products(account: Account, call: Call) -> Object:
    """All, by state or ids."""
    products = account.store.all("product")
    if ids := call.params.get("ids"):
        products = (one for one in products if one["id"] in ids)
    return page(call, products, handled=["ids"])


def list_prices(account: Account, call: Call) -> Object:
    """All, by product, lookup keys or the meter that they are for."""
    wanted = call.params
    prices = [
        one
        for one in account.store.all("price")
        if one["lookup_key"] in wanted.get("lookup_keys", [one["lookup_key"]])
        and _within(one["recurring"] or {}, wanted.get("recurring", {}))
    ]
    return page(call, prices, handled=["lookup_keys", "recurring"])


def _within(members: Object, wanted: dict[str, Any]) -> bool:
    return all(members.get(name) == value for name, value in wanted.items())


def _product(account: Account, given: dict[str, Any]) -> Object:
    if "product" not in given:
        message = "You must specify either `product` or `product_data` when creating a price."
        raise invalid(message, code="parameter_missing", param="product")
    return account.store.get("product", given["product"], "product")


def _check_meter(account: Account, recurring: dict[str, Any]) -> None:
    metered, meter = recurring.get("usage_type") == "metered", recurring.get("meter")
    if metered and meter is None:
        message = "Metered prices must be backed by a meter: pass `recurring[meter]`."
        raise invalid(message, code="parameter_missing", param="recurring[meter]")
    if meter is not None and not metered:
        message = "`recurring[meter]` can only be set when `recurring[usage_type]` is `metered`."
        raise invalid(message, param="recurring[meter]")
    if meter is not None:
        found = account.store.get("billing.meter", meter, "recurring[meter]")
        if found["status"] != "active":
            raise refused("The meter of this price is inactive.", code="archived_meter")


def _free_key(account: Account, key: str | None, *, transfer: bool) -> None:
    """A lookup key belongs to one price, and moves only if asked to."""
    holder = account.store.first("price", lambda one: bool(key) and one["lookup_key"] == key)
    if holder is None:
        return
    if not transfer:
        message = f"A price (`{holder['id']}`) already uses that lookup key. Set "
        message += "`transfer_lookup_key` to `true` if you want to transfer it."
        raise refused(message, param="lookup_key")
    holder["lookup_key"] = None


def _recurring(given: dict[str, Any] | None) -> Object | None:
    if given is None:
        return None
    if given["interval"] != "month" or given.get("interval_count", 1) != 1:
        raise Failure(501, "The fake models prices by the month only.")
    return {
        "interval": "month",
        "interval_count": 1,
        "meter": given.get("meter"),
        "trial_period_days": None,
        "usage_type": given.get("usage_type", "licensed"),
    }


def _amount(given: dict[str, Any]) -> Object:
    if ("unit_amount" in given) == ("unit_amount_decimal" in given):
        message = "Specify exactly one of `unit_amount` and `unit_amount_decimal`."
        raise invalid(message, code="parameter_missing", param="unit_amount")
    amount = Decimal(str(given.get("unit_amount", given.get("unit_amount_decimal"))))
    exponent = amount.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > _DECIMALS:
        message = "`unit_amount_decimal` may have at most 12 decimal places."
        raise invalid(message, param="unit_amount_decimal")
    whole = amount == amount.to_integral_value()
    return {
        "unit_amount": int(amount) if whole else None,
        "unit_amount_decimal": f"{amount.normalize():f}",
    }


_PRICE: Final = "active currency lookup_key transfer_lookup_key metadata nickname product recurring"
RULES: Final = (
    Rule(
        "POST",
        "/v1/products",
        create_product,
        params.ProductCreateParams,
        "id name active description metadata unit_label",
    ),
    Rule("GET", "/v1/products", list_products, params.ProductListParams),
    Rule("GET", "/v1/products/{id}", retrieve, params.ProductRetrieveParams),
    Rule(
        "POST",
        "/v1/products/{id}",
        update,
        params.ProductUpdateParams,
        "name active description metadata unit_label",
    ),
    Rule(
        "POST",
        "/v1/prices",
        create_price,
        params.PriceCreateParams,
        f"{_PRICE} unit_amount unit_amount_decimal",
    ),
    Rule("GET", "/v1/prices", list_prices, params.PriceListParams),
    Rule("GET", "/v1/prices/{id}", retrieve, params.PriceRetrieveParams),
    Rule(
        "POST",
        "/v1/prices/{id}",
        update,
        params.PriceUpdateParams,
        "active lookup_key transfer_lookup_key metadata nickname",
    ),
)
