"""What each service process is told."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.addresses import without_credentials
from penstock.data_dir import DataDir
from penstock.endpoints import Endpoints
from penstock.services import (
    ServicePlan,
    instances,
    metrics_urls,
    ops_port_name,
    possible_instances,
    service_spec,
    service_specs,
)
from penstock.settings import read_settings
from penstock.supervision.ordering import start_waves

ENVIRON = {
    "PATH": "/bin",
    "PENSTOCK_ADMIN_KEY": "inherited",
    "PENSTOCK_API_KEY": "psk_users",
    "PENSTOCK_STRIPE_API_KEY": "sk_test",
    "PENSTOCK_BRAINTREE_PRIVATE_KEY": "secret",
}


@pytest.fixture
def plan(tmp_path):
    settings = read_settings(ENVIRON, data_dir=tmp_path, port=0, workers="2")
    names = [ops_port_name(instance) for instance in instances(settings)]
    return ServicePlan(
        settings=settings,
        data_dir=DataDir(tmp_path),
        endpoints=Endpoints(
            "nats://u:p@h:1", "nats://sys:p@h:1", "dsn", "redis://x", "SASEED", 1, ()
        ),
        ports={**{name: 9000 + number for number, name in enumerate(names)}, "http": 8080},
        admin_key="pad_admin",
        models_dir=Path("/models"),
        environ=ENVIRON,
    )


@pytest.fixture
def environments(plan):
    return {spec.name: dict(spec.env) for spec in service_specs(plan)}


def test_billing_starts_first_and_the_rest_together(plan):
    """Billing creates schema and streams; nobody waits for anyone else."""
    assert start_waves(service_specs(plan)) == [
        ["billing"],
        ["audit", "realtime", "router", "worker-1", "worker-2"],
    ]


def test_only_those_who_need_a_secret_get_it(environments):
    """I8: the callout's seed is realtime's alone, payment providers' keys are billing's alone."""
    with_seed = {n for n, env in environments.items() if "PENSTOCK_AUTH_CALLOUT_SEED" in env}
    with_admin = {n for n, env in environments.items() if "PENSTOCK_ADMIN_KEY" in env}
    assert with_seed == {"realtime"}
    assert with_admin == {"realtime", "billing"}
    assert environments["billing"]["PENSTOCK_ADMIN_KEY"] == "pad_admin"
    for name in ("PENSTOCK_STRIPE_API_KEY", "PENSTOCK_BRAINTREE_PRIVATE_KEY"):
        assert {n for n, env in environments.items() if name in env} == {"billing"}
    assert all("PENSTOCK_API_KEY" not in env for env in environments.values())


def test_each_process_has_its_own_port_state_and_name(environments):
    """Two workers share nothing but the servers."""
    assert environments["worker-2"]["PENSTOCK_INSTANCE"] == "worker-2"
    for variable in ("PENSTOCK_OPS_PORT", "PENSTOCK_STATE_DIR"):
        values = [env[variable] for env in environments.values()]
        assert len(set(values)) == len(values)


def test_every_service_gets_the_servers_and_the_root_key(environments, plan):
    """The twelve-factor names of DESIGN.md, for each service."""
    for env in environments.values():
        assert env["PENSTOCK_NATS_URL"] == "nats://u:p@h:1"
        assert env["PENSTOCK_POSTGRES_DSN"] == "dsn"
        assert env["PENSTOCK_REDIS_URL"] == "redis://x"
        assert env["PENSTOCK_ROOT_KEY_FILE"] == str(plan.data_dir.root_key_file)
        assert env["PENSTOCK_MODELS_DIR"] == "/models"
    assert environments["realtime"]["PENSTOCK_HTTP_PORT"] == "8080"


def test_describing_a_process_shows_no_secret(plan):
    """I8: a spec that ends up in a log or an error carries no environment."""
    shown = repr([*service_specs(plan), plan])
    assert "pad_admin" not in shown
    assert "SASEED" not in shown


def test_workers_may_finish_and_everyone_drains_on_sigterm(plan):
    """A worker gets longer than the others, to finish or hand back its job."""
    grace = {spec.name: spec.grace_s for spec in service_specs(plan)}
    assert grace["worker-1"] > grace["router"]
    assert {spec.stop_signal for spec in service_specs(plan)} == {signal.SIGTERM}


def test_each_worker_is_told_its_share_of_the_processors(plan, environments):
    """Two workers do not both take the whole machine; the operator's own number stands."""
    share = str(plan.settings.processors_per_worker)
    assert environments["worker-1"]["PENSTOCK_PROCESSORS"] == share
    assert "PENSTOCK_PROCESSORS" not in environments["router"]
    own = replace(plan, environ={**ENVIRON, "PENSTOCK_PROCESSORS": "7"})
    assert service_spec(own, "worker-2").env["PENSTOCK_PROCESSORS"] == "7"


def test_auto_starts_with_no_worker_and_has_a_port_for_each(tmp_path):
    """What may ever run has its metrics' address before it runs."""
    settings = read_settings(ENVIRON, data_dir=tmp_path, port=0, workers="auto:2")
    assert instances(settings) == ["billing", "audit", "router", "realtime"]
    assert {"worker-1", "worker-2"} <= set(possible_instances(settings))


def test_metrics_of_every_process_are_listed(plan):
    """Prometheus finds each process by name."""
    assert set(metrics_urls(plan)) == set(instances(plan.settings))


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("nats://u:p@127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
    ],
)
def test_shown_addresses_carry_no_credentials(url, bare):
    """I8: what users see of the bus has no password in it."""
    assert without_credentials(url) == bare


def test_workers_share_what_operators_added_and_what_was_tuned(environments, plan):
    """One store and one set of layouts for all workers of a stack; nobody else is told."""
    for variable in ("PENSTOCK_MODEL_STORE", "PENSTOCK_TUNING_DIR"):
        told = {name: env[variable] for name, env in environments.items() if variable in env}
        assert set(told) == {"worker-1", "worker-2"}
        assert len(set(told.values())) == 1
    assert environments["worker-1"]["PENSTOCK_MODEL_STORE"] == str(plan.data_dir.models)
