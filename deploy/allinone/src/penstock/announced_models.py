"""What a stack can serve is known before a worker runs: with none, jobs must find their queue."""

from pathlib import Path

from penstock.errors import OperatorError
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.model_catalog import ModelCatalog, announce, seed
from penstock_shared.runtime.provision import provision
from penstock_worker.adapters.echo_engine import ECHO_RECORD


async def announce_models(
    nats_url: str, replicas: int, models_dir: Path | None, *, echo: bool
) -> None:
    """Put the bundled models into the registry, as every worker does at its start.

    Raises:
        OperatorError: The bus does not take them.
    """
    try:
        broker = await Broker.connect(nats_url, name="penstock-up")
        try:
            await provision(broker, replicas)
            await seed(broker, ModelCatalog([models_dir]))
            if echo:
                await announce(broker, ECHO_RECORD)
        finally:
            await broker.close()
    except PenstockError as error:
        raise OperatorError(
            f"The models could not be announced: {error.message}",
            "See `penstock ps`, and the bus's log in the data directory.",
        ) from error
