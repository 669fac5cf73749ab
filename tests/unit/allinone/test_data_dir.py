"""The data directory: its place, its owner, what it remembers."""

from pathlib import Path

import pytest

from penstock.data_dir import DataDir, resolve_data_dir
from penstock.errors import OperatorError
from penstock.remembered import Topology, recall, remember


def test_the_option_wins_over_the_variable_over_the_default():
    """The same rule for `up` and every operator command."""
    environ = {"PENSTOCK_DATA_DIR": "/from/variable", "XDG_DATA_HOME": "/share"}
    assert resolve_data_dir(Path("/from/option"), environ) == Path("/from/option")
    assert resolve_data_dir(None, environ) == Path("/from/variable")
    assert resolve_data_dir(None, {"XDG_DATA_HOME": "/share"}) == Path("/share/penstock")
    assert resolve_data_dir(None, {}) == Path("~/.local/share/penstock").expanduser()


def test_one_owner_at_a_time(tmp_path):
    """nats-server locks nothing: a second stack on one store would corrupt it (I1)."""
    place = DataDir(tmp_path / "data")
    assert not place.is_held()
    with place.held():
        assert place.is_held()
        with pytest.raises(OperatorError, match="already runs") as caught, place.held():
            pass
        assert "--data-dir" in caught.value.hint
    assert not place.is_held()


def test_a_place_below_a_file_gets_a_sentence(tmp_path):
    """What cannot be a directory is explained, not traced."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="not a directory"):
        DataDir(tmp_path / "file" / "data").create()


def test_ports_and_bounds_are_found_again(tmp_path):
    """The file store's bound stays as it was, however the free disk changes."""
    place = DataDir(tmp_path)
    first = recall(place, Topology.SINGLE).model_copy(update={"ports": {"nats": 4222}})
    remember(place, first)
    assert recall(place, Topology.SINGLE) == first
    assert 1 << 30 <= first.max_file_store <= 100 << 30


def test_another_topology_does_not_hide_the_streams(tmp_path):
    """A directory of one topology refuses the other instead of coming up empty (I1)."""
    place = DataDir(tmp_path)
    remember(place, recall(place, Topology.SINGLE))
    with pytest.raises(OperatorError) as caught:
        recall(place, Topology.CLUSTER3)
    assert "PENSTOCK_NATS_TOPOLOGY=single" in caught.value.hint
