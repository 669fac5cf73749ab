"""Stripe's settings as they come from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_billing.settings import Settings

_REQUIRED = {
    "PENSTOCK_NATS_URL": "nats://localhost",
    "PENSTOCK_POSTGRES_DSN": "postgresql://localhost/x",
    "PENSTOCK_ROOT_KEY_FILE": str(Path("root.key")),
}


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        (None, []),
        ("", []),
        ("whsec_a", ["whsec_a"]),
        (" whsec_a, whsec_b ,", ["whsec_a", "whsec_b"]),
    ],
)
def test_several_webhook_secrets_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str | None, secrets: list[str]
) -> None:
    """While one is rolled there are two; and none of them is ever printed."""
    for name, setting in _REQUIRED.items():
        monkeypatch.setenv(name, setting)
    if value is not None:
        monkeypatch.setenv("PENSTOCK_STRIPE_WEBHOOK_SECRETS", value)
    settings = Settings()
    assert [secret.get_secret_value() for secret in settings.stripe_webhook_secrets] == secrets
    assert "whsec_" not in settings.model_dump_json()
    assert settings.stripe_api_key is None
