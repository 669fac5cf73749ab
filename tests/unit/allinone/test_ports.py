"""The choice of ports."""

import socket

import pytest

from penstock.errors import OperatorError
from penstock.ports import choose_ports, require_free_port


def test_names_get_different_free_ports():
    """No two of fifty names share a port."""
    ports = choose_ports([f"p{number}" for number in range(50)], {})
    assert len(set(ports.values())) == 50


def test_a_remembered_port_is_kept_while_it_is_free():
    """A restart finds its servers where they were."""
    first = choose_ports(["nats", "redis"], {})
    assert choose_ports(["nats", "redis"], first) == first


def test_a_remembered_port_that_another_program_took_is_replaced():
    """A foreign listener makes the stack move, not fail."""
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        taken = foreign.getsockname()[1]
        assert choose_ports(["nats"], {"nats": taken})["nats"] != taken


def test_two_names_with_one_remembered_port_part_ways():
    """A damaged memory cannot put two servers on one port."""
    port = choose_ports(["a"], {})["a"]
    chosen = choose_ports(["a", "b"], {"a": port, "b": port})
    assert chosen["a"] == port
    assert chosen["b"] != port


def test_a_wished_port_that_is_taken_gets_a_sentence():
    """`--port 8080` on a taken port says what to do."""
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        taken = foreign.getsockname()[1]
        with pytest.raises(OperatorError) as caught:
            require_free_port(taken, "127.0.0.1")
    assert str(taken) in caught.value.message
    assert "--port 0" in caught.value.hint
