"""`python -m tests.support.doctored_worker`: the worker, with an echo model that can kill it.

A prompt that holds `FATAL_WORD` ends the process as a fault in an engine's native code would: at
once, from the engine's thread, and with every job that it holds. Nothing else differs, except that
a dead worker's jobs come back after `ACK_WAIT_S`, as the test's own process has to set it, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any, Final

from penstock_shared.contracts import streams
from penstock_shared.runtime.lifecycle import run
from penstock_shared.runtime.settings import load_settings
from penstock_worker.adapters.echo_engine import EchoEngine
from penstock_worker.app import create_app
from penstock_worker.ports import Prompt
from penstock_worker.settings import Settings

FATAL_WORD: Final = "nitroglycerine"
ACK_WAIT_S: Final = 3.0
_generate = EchoEngine.generate


def _explosive(engine: EchoEngine, prompts: Sequence[Prompt], *rest: Any) -> None:
    if any(FATAL_WORD in token for prompt in prompts for token in prompt.tokens):
        os.kill(os.getpid(), signal.SIGKILL)
    _generate(engine, prompts, *rest)


if __name__ == "__main__":
    EchoEngine.generate = _explosive  # type: ignore[method-assign, assignment]
    streams.JOB_ACK_WAIT_S = ACK_WAIT_S  # type: ignore[misc]
    run(lambda: create_app(load_settings(Settings)))
