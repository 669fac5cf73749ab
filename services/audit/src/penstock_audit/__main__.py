"""`python -m penstock_audit`."""

from penstock_audit.app import create_app
from penstock_audit.settings import Settings
from penstock_shared.runtime.lifecycle import run
from penstock_shared.runtime.settings import load_settings

if __name__ == "__main__":
    run(lambda: create_app(load_settings(Settings)))
