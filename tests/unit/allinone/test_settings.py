"""The operator's settings."""

import pytest

from penstock.errors import OperatorError
from penstock.models_dir import find_models_dir
from penstock.settings import SERVICES, UpSettings, read_settings


def read(environ: dict[str, str]) -> UpSettings:
    return read_settings(environ, data_dir=None, port=0, workers="1")


def test_all_services_start_unless_some_are_named():
    """`PENSTOCK_SERVICES` restricts, in start order; empty leaves the servers alone."""
    assert read({}).services == SERVICES
    assert read({"PENSTOCK_SERVICES": "realtime, billing"}).services == ("billing", "realtime")
    assert read({"PENSTOCK_SERVICES": ""}).services == ()


@pytest.mark.parametrize(
    ("variable", "value", "hint"),
    [
        ("PENSTOCK_SERVICES", "biling", "billing"),
        ("PENSTOCK_NATS_TOPOLOGY", "ring", "cluster3"),
        ("PENSTOCK_STREAM_REPLICAS", "two", "1, 3 or 5"),
    ],
)
def test_a_wrong_value_names_its_variable_and_the_choices(variable, value, hint):
    """A slip in the environment costs one look at one sentence."""
    with pytest.raises(OperatorError) as caught:
        read({variable: value})
    assert variable in caught.value.message
    assert hint in caught.value.hint


def test_own_servers_are_secret_when_shown():
    """I8: the passwords in the addresses do not reach a log."""
    settings = read({"PENSTOCK_POSTGRES_DSN": "postgresql://u:hunter2@db/x"})
    assert "hunter2" not in repr(settings)


def test_a_missing_models_directory_gets_a_sentence(tmp_path):
    """The variable is named, and what it should point at."""
    with pytest.raises(OperatorError, match="PENSTOCK_MODELS_DIR"):
        find_models_dir(tmp_path / "nowhere")
    assert find_models_dir(tmp_path) == tmp_path
