"""What an operator's act makes of a model's record. Pure: no I/O."""

from penstock.errors import OperatorError
from penstock_shared.contracts.models import ModelManifest, ModelRecord


def with_version(record: ModelRecord | None, manifest: ModelManifest, now_s: int) -> ModelRecord:
    """Register a version: the first one serves, a further one waits to be promoted.

    A version that is registered already leaves the record as it is: its files are new to this
    machine alone.
    """
    if record is None:
        fresh = manifest.record()
        return fresh.model_copy(update={"origin": "operator", "created_unix_s": now_s})
    if manifest.version in record.versions:
        return record
    versions = (*record.versions, manifest.version)
    return record.model_copy(update={"versions": versions, "origin": "operator"})


def promoted(record: ModelRecord, manifest: ModelManifest) -> ModelRecord:
    """Let a version serve, and let bygones be bygones: a promotion lifts the quarantine.

    Raises:
        OperatorError: The version is not registered.
    """
    require_version(record, manifest.version)
    described = manifest.record()
    return described.model_copy(
        update={
            "versions": record.versions,
            "limits": record.limits,
            "created_unix_s": record.created_unix_s,
            "origin": "operator",
            "crashed_on": (),
        }
    )


def without_version(record: ModelRecord, version: str) -> ModelRecord:
    """Forget a version that does not serve.

    Raises:
        OperatorError: It is not registered, or it is the one that serves.
    """
    require_version(record, version)
    if version == record.version:
        raise OperatorError(
            f"Version {version} of {record.name} is the one that serves.",
            f"Promote another first (`penstock models promote {record.name} VERSION`), or remove"
            f" the whole model (`penstock models remove {record.name}`).",
        )
    left = tuple(known for known in record.versions if known != version)
    return record.model_copy(update={"versions": left, "origin": "operator"})


def next_version(record: ModelRecord | None) -> str:
    """The lowest number above the count of versions that is not taken."""
    taken = record.versions if record is not None else ()
    number = len(taken) + 1
    while str(number) in taken:
        number += 1
    return str(number)


def require_version(record: ModelRecord, version: str) -> None:
    """Refuse a version that nobody registered.

    Raises:
        OperatorError: There is no such version.
    """
    if version not in record.versions:
        known = ", ".join(record.versions) or "none"
        raise OperatorError(
            f"{record.name} has no version {version!r} (there is: {known}).",
            "See `penstock models list`, or add it with `penstock models add`.",
        )
