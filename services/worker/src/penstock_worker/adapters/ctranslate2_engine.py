"""CTranslate2: the only file that knows it.

Measured (FIELD-NOTES, README): one thread per batch and several batches side by side beat several
threads per batch by far on small machines. `generate_batch` calls back in the engine's thread
for every token of every item, with the item's index in the batch, and not for prompt tokens; True
stops that item alone. It releases the interpreter lock while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import ctranslate2

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.requests import ChatMessage
from penstock_worker.adapters.tokenizer import ChatTokenizer
from penstock_worker.errors import EngineError
from penstock_worker.ports import BatchObserver, Detokenizer, SamplingOptions

_WARM_UP_TOKENS: Final = 4
_WHOLE_VOCABULARY: Final = 0


class CTranslate2Engine:
    """One decoder model in CTranslate2's format, with its tokenizer beside it."""

    def __init__(
        self,
        directory: Path,
        *,
        context_tokens: int,
        slots: int,
        max_batch: int,
        device: Literal["cpu", "auto"] = "cpu",
    ) -> None:
        """Load the model and run it once.

        Raises:
            PermanentError: the files are incomplete or not CTranslate2's.
        """
        self._tokenizer = ChatTokenizer(directory)
        try:
            self._generator: Any = ctranslate2.Generator(
                str(directory),
                device=device,
                compute_type="int8" if device == "cpu" else "auto",
                inter_threads=slots,
                intra_threads=1,
            )
            self._warm_up(slots)
        except (RuntimeError, ValueError) as error:
            msg = f"CTranslate2 cannot load {directory}: {error}. Export the model again."
            raise PermanentError(msg, code="model_unloadable") from error
        self.slots = slots
        self.max_batch = max_batch
        self.context_tokens = context_tokens
        self._end_ids = self._tokenizer.end_ids

    def encode(self, messages: Sequence[ChatMessage]) -> list[str]:
        """The prompt's tokens."""
        return self._tokenizer.encode(messages)

    def detokenizer(self) -> Detokenizer:
        """A fresh one for one answer."""
        return self._tokenizer.detokenizer()

    def generate(
        self,
        prompts: list[list[str]],
        options: SamplingOptions,
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        """Run one batch to its end."""
        greedy = options.temperature == 0
        try:
            self._generator.generate_batch(
                prompts,
                beam_size=1,
                max_length=max_tokens,
                include_prompt_in_result=False,
                end_token=self._end_ids or None,
                sampling_topk=1 if greedy else _WHOLE_VOCABULARY,
                sampling_topp=1.0 if greedy else options.top_p,
                sampling_temperature=1.0 if greedy else options.temperature,
                callback=_callback(len(prompts), frozenset(self._end_ids), observer),
            )
        except (RuntimeError, ValueError) as error:
            msg = "The engine failed on this batch."
            raise EngineError(msg) from error

    def close(self) -> None:
        """Free the model. Left to the interpreter's exit, its threads can abort the process."""
        self._generator.unload_model()
        self._generator = None

    def _warm_up(self, slots: int) -> None:
        prompt = self.encode((ChatMessage(role="user", content="Hello"),))
        self._generator.generate_batch(
            [prompt] * slots,
            max_batch_size=1,
            max_length=_WARM_UP_TOKENS,
            include_prompt_in_result=False,
        )


def _callback(
    items: int, end_ids: frozenset[int], observer: BatchObserver
) -> Callable[[Any], bool]:
    """What CTranslate2 calls for each token of each item.

    A step is over when its last running item has spoken. Items whose prompt is longer than the
    shortest are fed in silence at first, so the next step's first token says it as well.
    """
    running = [True] * items
    last = items - 1
    step = 0

    def on_result(result: Any) -> bool:
        nonlocal last, step
        index: int = result.batch_id
        token: int = result.token_id
        if result.step != step:
            step = result.step
            observer.on_step()
        if token in end_ids:
            observer.on_end(index)
            running[index] = False
        elif observer.on_token(index, token):
            running[index] = False
        if index == last:
            while last >= 0 and not running[last]:
                last -= 1
            observer.on_step()
        return not running[index]

    return on_result
