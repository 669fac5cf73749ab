"""A stateful fake of Stripe's API, reached over HTTP by the real `stripe` package.

It is strict: parameters are held against the description that the package itself carries, and every
rule names the page of Stripe's documentation that it follows. `running()` gives a `StripeFake`.
"""

from tests.support.stripe_fake.server import API_KEY, StripeFake, running
from tests.support.vendor_faults import Fault, Kind

__all__ = ["API_KEY", "Fault", "Kind", "StripeFake", "running"]
