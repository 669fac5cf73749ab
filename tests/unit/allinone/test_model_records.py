"""What an operator's act makes of a model's record."""

import pytest

from penstock.errors import OperatorError
from penstock.registry.records import next_version, promoted, with_version, without_version
from penstock_shared.contracts.models import ModelLimits, ModelManifest


def manifest(version: str, context_tokens: int = 16) -> ModelManifest:
    return ModelManifest(
        name="tiny",
        version=version,
        parameters=1,
        context_tokens=context_tokens,
        price_input_microusd_per_1k=1,
        price_output_microusd_per_1k=int(version),
    )


def test_the_first_version_serves_and_further_ones_wait():
    """Registering never changes what serves, once something does."""
    first = with_version(None, manifest("1"), 100)
    assert (first.version, first.versions, first.origin) == ("1", ("1",), "operator")
    assert first.created_unix_s == 100
    second = with_version(first, manifest("2", 32), 200)
    assert (second.version, second.versions, second.context_tokens) == ("1", ("1", "2"), 16)
    assert with_version(second, manifest("2"), 300) == second


def test_promotion_takes_over_everything_that_belongs_to_the_version():
    """Context and price are the version's; limits, age and the list of versions the model's."""
    record = with_version(with_version(None, manifest("1"), 100), manifest("2"), 200)
    limits = ModelLimits(queue=7)
    record = record.model_copy(update={"limits": limits, "crashed_on": ("a", "b", "c")})
    assert record.quarantined
    now = promoted(record, manifest("2", 32))
    assert (now.version, now.context_tokens, now.price.output_microusd_per_1k) == ("2", 32, 2)
    assert (now.versions, now.limits, now.created_unix_s) == (("1", "2"), limits, 100)
    assert not now.quarantined


def test_what_serves_is_not_removed_alone_and_what_is_unknown_not_promoted():
    """The refusals name the command that leads on."""
    record = with_version(with_version(None, manifest("1"), 1), manifest("2"), 1)
    assert without_version(record, "2").versions == ("1",)
    with pytest.raises(OperatorError) as caught:
        without_version(record, "1")
    assert "penstock models promote tiny" in caught.value.hint
    with pytest.raises(OperatorError, match="no version '3'"):
        promoted(record, manifest("3"))


def test_the_next_version_is_a_number_that_is_free():
    """Also where an operator gave names of its own, or removed some."""
    record = with_version(None, manifest("2"), 1)
    assert next_version(None) == "1"
    assert next_version(record) == "3"
