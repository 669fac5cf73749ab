"""What clients were shown of a request, read from the frames that runs have published.

The same rule as the edge's (realtime, domain/continuation.py): the text that stands grows by a
run that begins with all of it, and by no other. So a successor that begins with this text goes on
where clients stopped, also when earlier runs had parted ways.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_shared.contracts.responses import RUN_NUMBERS, Delta
from penstock_worker.ports import Delivered


@dataclass(slots=True)
class _Run:
    next_n: int
    text: str = ""


@dataclass(slots=True)
class Shown:
    """Folds one attempt's deltas in the order in which they were published."""

    delivered: Delivered = field(default_factory=Delivered)
    """What clients have, as far as it is contiguous from the first delta of a run (I6)."""
    _runs: dict[str, _Run] = field(default_factory=dict)

    def feed(self, delta: Delta) -> None:
        """Take one delta; one that does not follow its run's last is as good as lost."""
        run = self._runs.get(delta.run)
        if run is None:
            run = self._runs[delta.run] = _Run(delta.n - delta.n % RUN_NUMBERS)
        if delta.n != run.next_n:
            return
        run.next_n += 1
        run.text += delta.text
        has = self.delivered
        if len(run.text) > len(has.text) and run.text.startswith(has.text):
            has.text = run.text
            has.ends.append(len(run.text))
            has.numbers.append(max(delta.n, has.numbers[-1] + 1) if has.numbers else delta.n)
