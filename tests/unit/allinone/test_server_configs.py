"""The configurations of the embedded servers."""

from pathlib import Path

import pytest

from penstock.embedded import nats, redis
from penstock.remembered import Topology

CREDENTIALS = nats.BusCredentials("servicepw", "systempw", "routepw", "ATHEISSUER")


def bus_config(topology: Topology, index: int = 0) -> str:
    ports = {name: 4000 + number for number, name in enumerate(nats.port_names(topology))}
    nodes = nats.plan_nodes(topology, ports, Path("/data/nats"))
    return nats.render_config(nodes[index], nodes, CREDENTIALS, max_file_store=1 << 30)


def test_the_bus_syncs_every_write_and_listens_on_loopback_only():
    """I1: without `sync_interval: always` an acknowledged publish is not on the disk."""
    config = bus_config(Topology.SINGLE)
    assert "sync_interval: always" in config
    assert 'listen: "127.0.0.1:4000"' in config
    assert 'http: "127.0.0.1:4001"' in config
    assert "0.0.0.0" not in config


def test_only_the_services_and_the_system_user_bypass_the_callout():
    """I8: everybody else is decided by the auth callout, and nobody gets in without a name."""
    config = bus_config(Topology.SINGLE)
    assert 'auth_users: [ "penstock", "sys" ]' in config
    assert 'issuer: "ATHEISSUER"' in config
    assert "no_auth_user" not in config


def test_a_single_server_is_no_cluster():
    """One server must not wait for a quorum."""
    assert "cluster" not in bus_config(Topology.SINGLE)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_cluster_node_routes_to_the_two_others(index):
    """Three nodes know each other by loopback routes with a password."""
    config = bus_config(Topology.CLUSTER3, index)
    assert config.count("nats-route://route:routepw@127.0.0.1:") == 2
    own_route = f"127.0.0.1:{4000 + index * 3 + 2}"
    assert f'listen: "{own_route}"' in config
    assert f"@{own_route}" not in config


def test_topologies_keep_their_stores_apart():
    """A cluster never opens a single server's store."""
    assert '"/data/nats/single/nats/store"' in bus_config(Topology.SINGLE)
    assert '"/data/nats/cluster3/nats-2/store"' in bus_config(Topology.CLUSTER3, 1)


def test_services_get_every_node_and_clients_no_password():
    """The services' list carries credentials, the shown addresses do not."""
    ports = {name: 4000 + n for n, name in enumerate(nats.port_names(Topology.CLUSTER3))}
    nodes = nats.plan_nodes(Topology.CLUSTER3, ports, Path("/d"))
    assert nats.client_urls(nodes, "pw").split(",") == [
        "nats://penstock:pw@127.0.0.1:4000",
        "nats://penstock:pw@127.0.0.1:4003",
        "nats://penstock:pw@127.0.0.1:4006",
    ]
    assert nodes[0].address == "nats://127.0.0.1:4000"


def test_redis_keeps_nothing_is_bounded_and_never_evicts():
    """I6, I9: nothing depends on its files, and a full memory refuses instead of dropping."""
    lines = redis.render_config(6000, "pw").splitlines()
    assert {
        "bind 127.0.0.1",
        "port 6000",
        "requirepass pw",
        "appendonly no",
        'save ""',
        "maxmemory 256mb",
        "maxmemory-policy noeviction",
    } <= set(lines)
