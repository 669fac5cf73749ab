"""A request after its reading, and the rule that serves it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.store import Object

STREAM: Final = "/meter-events"
"""Where https://meter-events.stripe.com is found here: an address of its own, as there."""


@dataclass(frozen=True)
class Call:
    """What an endpoint is asked. `params` hold only what Stripe's description allows."""

    path: str
    names: dict[str, str]
    params: dict[str, Any]
    token: str = ""
    """The bearer of the request: a key, or a stream's session."""

    @property
    def id(self) -> str:
        """The object that the URL names."""
        return self.names["id"]


Endpoint = Callable[[Account, Call], Object]


@dataclass(frozen=True)
class Rule:
    """One endpoint: its address, its parameters and what it does.

    `models` names the parameters that the fake obeys; without it, all that Stripe has. The rest is
    refused with 501, since a parameter that is taken and has no effect would be a lie. `lane` names
    what only one call at a time may touch.
    """

    method: str
    path: str
    run: Endpoint
    params: type
    models: str | None = None
    lane: Callable[[Call], str] | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path as an expression."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path) + r"\Z")

    def unmodelled(self, given: dict[str, Any]) -> str | None:
        """A parameter that the fake does not obey, if one is given."""
        if self.models is None:
            return None
        known = {"expand", *self.models.split()}
        return next((name for name in given if name not in known), None)
