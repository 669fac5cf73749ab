"""The parameters of the organization usage API, and the question to billing that they make.

Source: https://developers.openai.com/api/reference/resources/organization (usage, costs), and the
official SDK's types, `openai.types.admin.organization`. There are no projects, batches or service
tiers to tell usage apart by: a request that asks for them is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_realtime.domain.parameters import Parameters, invalid, wrong_value
from penstock_shared.contracts.ids import DataSubject, KeyId, ModelName
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.usage_queries import LATEST, BucketWidth, QueryUsage, UsageGroup

COMPLETIONS: Final = (ModelKind.TEXT, ModelKind.TRANSLATION)
EMBEDDINGS: Final = (ModelKind.EMBEDDING,)
_LIMITS: Final = {
    BucketWidth.DAY: (7, 31),
    BucketWidth.HOUR: (24, 168),
    BucketWidth.MINUTE: (60, 1440),
}
"""Buckets of a page: where the client does not say, and at most."""
_NOT_SERVED: Final = ("project_ids", "batch")
_LINE_ITEM: Final = "line_item"
_UnixSeconds = Annotated[int, Field(ge=0, le=int(LATEST.timestamp()))]
_Few = Field(max_length=100)


class _TimeQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    LISTS: ClassVar[frozenset[str]]

    start_time: _UnixSeconds
    end_time: _UnixSeconds | None = None
    api_key_ids: Annotated[list[KeyId], _Few] | None = None
    page: Annotated[str, Field(max_length=2_000)] | None = None

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """From a query string; a list is a name that is repeated, with `[]` behind it or not.

        Raises:
            PermanentError: a parameter is unknown, not served, or has a value that it cannot have.
        """
        given: dict[str, Any] = {}
        for name, value in pairs:
            plain = name.removesuffix("[]")
            if plain in cls.LISTS:
                given.setdefault(plain, []).append(value)
            elif name in given:
                raise wrong_value(name[:80], "one value")
            else:
                given[name] = value
        served = Parameters(cls.model_fields, {}, _NOT_SERVED).served_of(given)
        try:
            query = cls.model_validate(served)
        except ValidationError as error:
            raise invalid(error) from error
        if query.end_time is not None and query.end_time <= query.start_time:
            raise wrong_value("end_time", "a time after 'start_time'")
        return query

    def _ask(self, tenant: str, groups: Iterable[UsageGroup], **fields: Any) -> QueryUsage:
        return QueryUsage(
            tenant=tenant,
            start=datetime.fromtimestamp(self.start_time, UTC),
            end=None if self.end_time is None else datetime.fromtimestamp(self.end_time, UTC),
            group_by=tuple(dict.fromkeys(groups)),
            key_ids=self.api_key_ids,
            page=self.page,
            **fields,
        )


class UsageQuery(_TimeQuery):
    """Which usage, of completions or of embeddings."""

    LISTS = frozenset({"group_by", "models", "api_key_ids", "user_ids"})

    bucket_width: BucketWidth = BucketWidth.DAY
    group_by: list[Literal["model", "api_key_id", "user_id"]] = []
    models: Annotated[list[ModelName], _Few] | None = None
    user_ids: Annotated[list[DataSubject], _Few] | None = None
    limit: Annotated[int, Field(ge=1, le=1440)] | None = None

    def question(self, tenant: str, kinds: tuple[ModelKind, ...]) -> QueryUsage:
        """What it asks of billing.

        Raises:
            PermanentError: the parameters do not go together.
        """
        usual, most = _LIMITS[self.bucket_width]
        if self.limit is not None and self.limit > most:
            raise wrong_value("limit", f"at most {most} buckets of {self.bucket_width}")
        by_user = self.user_ids is not None or "user_id" in self.group_by
        if by_user and self.bucket_width is not BucketWidth.DAY:
            raise wrong_value("bucket_width", "'1d' where users are told apart")
        return self._ask(
            tenant,
            map(UsageGroup, self.group_by),
            kinds=kinds,
            width=self.bucket_width,
            models=self.models,
            users=self.user_ids,
            limit=self.limit or usual,
        )


class CostsQuery(_TimeQuery):
    """Which costs; a line item is a model."""

    LISTS = frozenset({"group_by", "line_items", "api_key_ids"})

    bucket_width: Literal["1d"] = "1d"
    group_by: list[Literal["line_item", "api_key_id", "user_id"]] = []
    line_items: Annotated[list[ModelName], _Few] | None = None
    limit: Annotated[int, Field(ge=1, le=180)] = 7

    def question(self, tenant: str) -> QueryUsage:
        """What it asks of billing."""
        groups = (
            UsageGroup.MODEL if name == _LINE_ITEM else UsageGroup(name) for name in self.group_by
        )
        return self._ask(tenant, groups, models=self.line_items, limit=self.limit)
