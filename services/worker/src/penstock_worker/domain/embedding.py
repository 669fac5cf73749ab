"""One run of a job that turns texts into vectors."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field

from penstock_worker.domain.generation import Stop


@dataclass(slots=True, eq=False)
class Embedding:
    """The state of one run. `stop_at_s` is on the monotonic clock."""

    texts: list[list[str]]
    """The tokens of each text."""
    dimensions: int
    stop_at_s: float
    vectors: list[bytes] = field(default_factory=list)
    """Float32, little endian, in the order of the texts."""
    stop: Stop | None = None

    @property
    def input_tokens(self) -> int:
        """Of all texts, with the model's own tokens around them."""
        return sum(map(len, self.texts))

    @property
    def text(self) -> str:
        """The answer: base64 of each vector, as the OpenAI API's `encoding_format` has it."""
        encoded = [base64.b64encode(vector).decode() for vector in self.vectors]
        return json.dumps({"dimensions": self.dimensions, "embeddings": encoded})

    def request_stop(self, why: Stop) -> None:
        """Not to be run, or its result not wanted."""
        if not self.vectors and self.stop is None:
            self.stop = why
