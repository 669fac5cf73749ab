"""Usage as the organization usage API writes it (source: see `usage_request.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from penstock_shared.contracts.usage_queries import UsageBucket, UsagePage, UsageSums

Result: TypeAlias = Callable[[UsageSums], dict[str, Any]]
_MICROUSD_PER_USD: Final = 1_000_000


def page_object(page: UsagePage, result: Result) -> dict[str, Any]:
    """A page of buckets."""
    return {
        "object": "page",
        "data": [_bucket(bucket, result) for bucket in page.buckets],
        "has_more": page.next_page is not None,
        "next_page": page.next_page,
    }


def completions_result(sums: UsageSums) -> dict[str, Any]:
    """Of everything that generates text."""
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "input_cached_tokens": sums.cached_input_tokens,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": sums.requests,
        **_groups(sums),
        "model": sums.model,
        "batch": None,
        "service_tier": None,
    }


def embeddings_result(sums: UsageSums) -> dict[str, Any]:
    """Of embeddings."""
    return {
        "object": "organization.usage.embeddings.result",
        "input_tokens": sums.input_tokens,
        "num_model_requests": sums.requests,
        **_groups(sums),
        "model": sums.model,
    }


def costs_result(sums: UsageSums) -> dict[str, Any]:
    """What usage cost at the prices of its requests: fees, tiers and credits are on the invoice."""
    return {
        "object": "organization.costs.result",
        "amount": {"value": sums.cost_microusd / _MICROUSD_PER_USD, "currency": "usd"},
        "line_item": sums.model,
        **_groups(sums),
    }


def _bucket(bucket: UsageBucket, result: Result) -> dict[str, Any]:
    return {
        "object": "bucket",
        "start_time": int(bucket.start.timestamp()),
        "end_time": int(bucket.end.timestamp()),
        "results": [result(sums) for sums in bucket.results],
    }


def _groups(sums: UsageSums) -> dict[str, Any]:
    return {"project_id": None, "user_id": sums.user, "api_key_id": sums.key_id}
