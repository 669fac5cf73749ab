"""The operator's settings."""

import pytest

from penstock.errors import OperatorError
from penstock.models_dir import find_models_dir
from penstock.scaling import ScalingPolicy, WorkerRange
from penstock.settings import SERVICES, UpSettings, read_settings


def read(environ: dict[str, str], workers: str = "1") -> UpSettings:
    return read_settings(environ, data_dir=None, port=0, workers=workers)


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
        ("PENSTOCK_ECHO_MODEL", "perhaps", "1 or 0"),
    ],
)
def test_a_wrong_value_names_its_variable_and_the_choices(variable, value, hint):
    """A slip in the environment costs one look at one sentence."""
    with pytest.raises(OperatorError) as caught:
        read({variable: value})
    assert variable in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("3", (3, 3)), ("auto:4", (0, 4)), ("auto:0-2", (0, 2)), ("auto:2-64", (2, 64))],
)
def test_workers_are_a_number_or_a_range(text, bounds):
    """`auto` begins at none unless a least number is named."""
    assert read({}, text).workers == WorkerRange(*bounds)


def test_auto_alone_suits_the_machine():
    """From none to at least two."""
    bounds = read({}, "auto").workers
    assert bounds.is_elastic
    assert bounds.least == 0
    assert bounds.most >= 2


@pytest.mark.parametrize(
    "text", ["0", "65", "many", "-1", "auto:", "auto:0", "auto:3-3", "auto:65"]
)
def test_a_wrong_number_of_workers_gets_a_sentence(text):
    """The option is named, and what it takes."""
    with pytest.raises(OperatorError, match="--workers") as caught:
        read({}, text)
    assert "auto:MIN-MAX" in caught.value.hint


def test_workers_share_the_processors(monkeypatch):
    """As many as divide the machine's processors; more workers than processors have one each."""
    monkeypatch.setattr("penstock.settings.available_processors", lambda: 8)
    shares = {text: read({}, text).processors_per_worker for text in ("1", "3", "16", "auto:4")}
    assert shares == {"1": 8, "3": 2, "16": 1, "auto:4": 2}
    assert read({}, "auto").workers == WorkerRange(0, 2)


def test_the_numbers_of_scaling_come_from_the_environment():
    """What is not set has its default; a slip in a name or a number names the variable."""
    environ = {"PENSTOCK_SCALE_LAG_THRESHOLD": "4", "PENSTOCK_SCALE_COOLDOWN_S": "7"}
    assert read(environ).scaling == ScalingPolicy(lag_threshold=4, cooldown_s=7)
    for variable, value in (("PENSTOCK_SCALE_TOLERANCE", "2"), ("PENSTOCK_SCALE_COOLDWN_S", "1")):
        with pytest.raises(OperatorError, match=variable):
            read({variable: value})


def test_own_servers_are_secret_when_shown():
    """I8: the passwords in the addresses do not reach a log."""
    settings = read({"PENSTOCK_POSTGRES_DSN": "postgresql://u:hunter2@db/x"})
    assert "hunter2" not in repr(settings)


def test_a_missing_models_directory_gets_a_sentence(tmp_path):
    """The variable is named, and what it should point at."""
    with pytest.raises(OperatorError, match="PENSTOCK_MODELS_DIR"):
        find_models_dir(tmp_path / "nowhere")
    assert find_models_dir(tmp_path) == tmp_path
