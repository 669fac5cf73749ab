"""A stateful fake of Braintree's gateway, reached over HTTP by the real `braintree` package.

It speaks the XML that the package speaks (API version 6). Each rule names the page that it follows.
`running()` gives a `BraintreeFake`.
"""

from tests.support.braintree_fake.server import (
    MERCHANT_ID,
    PRIVATE_KEY,
    PUBLIC_KEY,
    BraintreeFake,
    running,
)
from tests.support.vendor_faults import Fault, Kind

__all__ = [
    "MERCHANT_ID",
    "PRIVATE_KEY",
    "PUBLIC_KEY",
    "BraintreeFake",
    "Fault",
    "Kind",
    "running",
]
