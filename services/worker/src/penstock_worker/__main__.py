"""`python -m penstock_worker`."""

from penstock_shared.runtime.lifecycle import run
from penstock_shared.runtime.settings import load_settings
from penstock_worker.app import create_app
from penstock_worker.settings import Settings

if __name__ == "__main__":
    run(lambda: create_app(load_settings(Settings)))
