"""`python -m penstock_realtime`."""

from penstock_realtime.app import create_app
from penstock_realtime.settings import Settings
from penstock_shared.runtime.lifecycle import run
from penstock_shared.runtime.settings import load_settings

if __name__ == "__main__":
    run(lambda: create_app(load_settings(Settings)))
