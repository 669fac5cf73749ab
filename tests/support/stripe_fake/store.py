"""The objects of one account, in order of their making."""

from __future__ import annotations

import random
import string
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.support.stripe_fake.failures import invalid, missing

Object = dict[str, Any]

_LETTERS: Final = string.ascii_letters + string.digits
_METADATA_KEYS: Final = 50
_METADATA_NAME: Final = 40
_METADATA_VALUE: Final = 500


class Store:
    """Objects by id. Members that begin with `_` are the fake's own and are never sent."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._objects: dict[str, Object] = {}
        self._kinds: defaultdict[str, dict[str, Object]] = defaultdict(dict)

    def new_id(self, prefix: str, length: int = 24) -> str:
        """A fresh identifier of Stripe's form."""
        return f"{prefix}_{''.join(self._random.choices(_LETTERS, k=length))}"

    def put(self, made: Object) -> Object:
        """Keep it."""
        self._objects[made["id"]] = self._kinds[made["object"]][made["id"]] = made
        return made

    def drop(self, identity: str) -> None:
        """Forget it: what is deleted before it was ever finished leaves nothing behind."""
        del self._kinds[self._objects.pop(identity)["object"]][identity]

    def all(self, kind: str) -> Iterator[Object]:
        """Every object of a kind, oldest first."""
        return iter(list(self._kinds[kind].values()))

    def first(self, kind: str, fits: Callable[[Object], bool]) -> Object | None:
        """The oldest that fits."""
        return next((one for one in self.all(kind) if fits(one)), None)

    def any(self, identity: str) -> Object | None:
        """Whatever has this id."""
        return self._objects.get(identity)

    def get(self, kind: str, identity: str, param: str = "id") -> Object:
        """The object.

        Raises:
            Failure: `resource_missing`.
        """
        found = self._objects.get(identity)
        if found is None or found["object"] != kind:
            raise missing(kind.rsplit(".", 1)[-1].replace("_", ""), identity, param)
        return found


def merge_metadata(before: dict[str, str], given: dict[str, str] | str) -> dict[str, str]:
    """Keys are merged; an empty value unsets its key, an empty whole unsets all.

    At most 50 keys, of 40 characters, with values of 500 (https://docs.stripe.com/api/metadata).
    """
    if isinstance(given, str):
        return {}
    merged = {key: value for key, value in (before | given).items() if value != ""}
    for key, value in merged.items():
        if len(key) > _METADATA_NAME:
            raise invalid(f"Metadata key '{key}' exceeds 40 characters.", param="metadata")
        if len(value) > _METADATA_VALUE:
            message = f"Metadata values can have up to 500 characters, but you passed {len(value)}."
            raise invalid(message, param=f"metadata[{key}]")
    if len(merged) > _METADATA_KEYS:
        message = f"Metadata can have up to 50 keys, but you passed {len(merged)}."
        raise invalid(message, param="metadata")
    return merged
