"""Commands and questions about payments: one method per verb. None waits for money to move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from penstock_billing.domain.announcements import Act
from penstock_billing.domain.dunning import DunningTerms, suspends_at
from penstock_billing.domain.payments import new_refund
from penstock_billing.handlers.collecting import Collector, Relay, gateway_of
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.handlers.settling import Settling
from penstock_billing.ports.payment_book import PaymentBook, Refund, Situation
from penstock_billing.ports.payments import Payer, PaymentGateway, Provider
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.payments import (
    CollectInvoice,
    CollectionRecord,
    ExtendGrace,
    ListPayments,
    ListStandings,
    PayerRecord,
    PaymentList,
    RefundPayment,
    RefundRecord,
    SetPayer,
    StandingList,
    StandingRecord,
)
from penstock_shared.runtime.telemetry import log


class PaymentCommands:
    """Answers about payments."""

    def __init__(
        self,
        book: PaymentBook,
        gateways: Mapping[Provider, PaymentGateway],
        collector: Collector,
        settling: Settling,
        terms: DunningTerms,
        relay: Relay,
    ) -> None:
        self._book = book
        self._gateways = gateways
        self._collector = collector
        self._settling = settling
        self._terms = terms
        self._relay = relay
        self.verbs: dict[str, Verb] = {
            "set-payer": self._set_payer,
            "list-payments": self._list_payments,
            "collect-invoice": self._collect_invoice,
            "refund-payment": self._refund_payment,
            "list-standings": self._list_standings,
            "extend-grace": self._extend_grace,
        }

    async def _set_payer(self, payload: bytes, act: Act) -> PayerRecord:
        """If the process dies in here, asking again ends in the same customer and method."""
        command = parse_command(SetPayer, payload)
        provider = Provider(command.provider)
        gateway = gateway_of(self._gateways, provider)
        async with self._book.transaction() as transaction:
            record = await transaction.lock_tenant(command.tenant)
        customer = await gateway.add_customer(record.tenant, record.name)
        method = await gateway.add_method(customer, command.token)
        payer = Payer(record.tenant, provider, customer, method)
        async with self._book.transaction() as transaction:
            await transaction.lock_tenant(command.tenant)
            await transaction.save_payer(payer, act.at)
        log().info("payer.set", tenant=payer.tenant, provider=provider.value)
        return PayerRecord(
            tenant=payer.tenant, provider=provider.value, customer=customer, updated_at=act.at
        )

    async def _list_payments(self, payload: bytes, _: Act) -> PaymentList:
        query = parse_command(ListPayments, payload)
        period = None if query.month is None else _period(query.month)
        return await self._book.listed(query.tenant, period, query.limit)

    async def _collect_invoice(self, payload: bytes, _: Act) -> CollectionRecord:
        command = parse_command(CollectInvoice, payload)
        await self._collector.begin(command.tenant, _period(command.month))
        listed = await self._book.listed(command.tenant, _period(command.month), 1)
        return listed.collections[0]

    async def _refund_payment(self, payload: bytes, act: Act) -> RefundRecord:
        command = parse_command(RefundPayment, payload)
        async with self._book.transaction() as transaction:
            await transaction.lock_tenant(command.tenant)
            payment = await transaction.payment(str(command.payment_id))
            if payment is None or payment.payer.tenant != command.tenant:
                msg = f"'{command.tenant}' has no payment {command.payment_id}: list its payments."
                raise NotFoundError(msg, code="payment_not_found", param="payment_id")
            refunds = await transaction.refunds(payment.payment_id)
            known = [one for one in refunds if one.refund_id == str(command.refund_id)]
            if known:
                return _refund_record(known[0])
            refund = new_refund(payment, refunds, command, act.at)
            await transaction.save_refund(refund, None, next_look_at=act.at)
        log().info("refund.asked", tenant=command.tenant, refund_id=refund.refund_id)
        return _refund_record(refund)

    async def _list_standings(self, payload: bytes, _: Act) -> StandingList:
        query = parse_command(ListStandings, payload)
        found = await self._book.situations(query.tenant)
        return StandingList(standings=tuple(self._standing(*one) for one in found))

    async def _extend_grace(self, payload: bytes, act: Act) -> StandingRecord:
        """A tenant that is suspended for what it owes is let in again until then."""
        command = parse_command(ExtendGrace, payload)
        async with self._book.transaction() as transaction:
            record = await transaction.lock_tenant(command.tenant)
            before = await transaction.situation(command.tenant)
            extended = replace(before, extended_until=command.until, changed_at=act.at)
            await transaction.save_situation(command.tenant, extended)
            now = await self._settling.judge(transaction, record, act)
        await self._relay.flush()
        return self._standing(command.tenant, now)

    def _standing(self, tenant: str, situation: Situation) -> StandingRecord:
        return StandingRecord(
            tenant=tenant,
            standing=situation.standing,
            failing_since=situation.failing_since,
            suspends_at=suspends_at(situation, self._terms),
            extended_until=situation.extended_until,
            changed_at=situation.changed_at,
        )


def _period(month: str) -> date:
    return date.fromisoformat(f"{month}-01")


def _refund_record(refund: Refund) -> RefundRecord:
    return RefundRecord(
        refund_id=refund.refund_id,
        payment_id=refund.payment.payment_id,
        cents=refund.cents,
        reason=refund.reason,
        progress=refund.progress,
        started_at=refund.started_at,
    )
