"""Braintree's package, which is synchronous: called in a few threads, its failures translated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

import braintree
from braintree import exceptions
from pydantic import SecretStr

from penstock_shared.contracts.errors import NotFoundError, PermanentError, UnavailableError

_THREADS: Final = 16
"""More than are collected at once: a notice or a new payer does not wait for a slow sale."""
_REFUSED: Final = (
    exceptions.authentication_error.AuthenticationError,
    exceptions.authorization_error.AuthorizationError,
    exceptions.upgrade_required_error.UpgradeRequiredError,
    exceptions.configuration_error.ConfigurationError,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BraintreeAccount:
    """Whose account it is, and where."""

    environment: Literal["sandbox", "production"]
    merchant_id: str
    public_key: str
    private_key: SecretStr
    merchant_account_id: str | None = None
    """One that settles in US dollars; None: the default one does."""
    timeout_s: float = 20
    """To connect, and between bytes of the answer. What takes longer is looked up by its order id
    when it is asked for again."""
    url: str | None = None
    """Another server that speaks Braintree's protocol, for tests: `http://127.0.0.1:3000`."""


class BraintreeClient:
    """The official gateway object behind an `await`."""

    def __init__(self, account: BraintreeAccount) -> None:
        self.sdk: Any = braintree.BraintreeGateway(
            braintree.Configuration(
                environment=_environment(account),
                merchant_id=account.merchant_id,
                public_key=account.public_key,
                private_key=account.private_key.get_secret_value(),
                timeout=account.timeout_s,
                wrap_http_exceptions=True,
            )
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="braintree")

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Run one of the package's calls.

        A call whose caller is cancelled runs on: it is in doubt, as after a timeout.

        Raises:
            UnavailableError: no answer, or a server's error; it may have taken effect or not.
            NotFoundError: Braintree has no such thing.
            PermanentError: the keys are wrong, or may not do this.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        except exceptions.not_found_error.NotFoundError as error:
            msg = "Braintree has no such object."
            raise NotFoundError(msg, code="unknown_to_provider") from error
        except _REFUSED as error:
            msg = "Braintree refuses us: check PENSTOCK_BRAINTREE_* and the role of the keys."
            raise PermanentError(msg, code="provider_refused") from error
        except (exceptions.braintree_error.BraintreeError, ExpatError) as error:
            msg = f"Braintree does not answer ({type(error).__name__})."
            raise UnavailableError(msg, code="provider_unavailable") from error

    def close(self) -> None:
        """Begin no further calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _environment(account: BraintreeAccount) -> Any:
    known = braintree.Environment.parse_environment(account.environment)
    if account.url is None:
        return known
    parts = urlsplit(account.url)
    port = str(parts.port or 443)
    certificate = known.ssl_certificate if port == "443" else None
    return braintree.Environment("custom", parts.hostname, port, "", port == "443", certificate)
