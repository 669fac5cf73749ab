"""Answers questions about usage over time, from read models only."""

from __future__ import annotations

from penstock_billing.domain.announcements import Act
from penstock_billing.domain.usage_pages import usage_page, window
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.ports.reads import UsageReads
from penstock_shared.contracts.usage_queries import MAX_ROWS, QueryUsage, UsagePage


class UsageQuestions:
    """Whoever asks for one tenant sees that tenant's rows, whatever else the question says (I8)."""

    def __init__(self, reads: UsageReads) -> None:
        self._reads = reads
        self.verbs: dict[str, Verb] = {"query-usage": self._query}

    async def _query(self, payload: bytes, act: Act) -> UsagePage:
        query = parse_command(QueryUsage, payload)
        asked = window(query, act.at)
        found = await self._reads.groups(query, asked, MAX_ROWS + 1)
        return usage_page(query, asked, found, MAX_ROWS, act.at)
