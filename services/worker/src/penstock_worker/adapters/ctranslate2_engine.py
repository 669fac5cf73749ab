"""CTranslate2's decoders.

Measured (FIELD-NOTES, README): one thread per batch and several batches side by side beat several
threads per batch by far on small machines. `generate_batch` calls back in the engine's thread
for every token of every item, with the item's index in the batch, and not for prompt tokens; True
stops that item alone. It releases the interpreter lock while it computes. `return_scores` costs
nothing measurable and brings each token's log-probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import ctranslate2

from penstock_shared.contracts.models import ModelLayout, ModelManifest
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_worker.adapters.ctranslate2_errors import engine_errors, load_errors
from penstock_worker.adapters.tokenizer import ChatTokenizer
from penstock_worker.errors import ContextLengthError, ConversationError
from penstock_worker.ports import BatchObserver, Detokenizer, Prompt, SamplingOptions

_WARM_UP_TOKENS: Final = 4
_WHOLE_VOCABULARY: Final = 0


class CTranslate2Engine:
    """One decoder model in CTranslate2's format, with its tokenizer beside it."""

    def __init__(self, directory: Path, manifest: ModelManifest, layout: ModelLayout) -> None:
        """Load the model and run it once.

        Raises:
            PermanentError: the files are incomplete or not CTranslate2's.
        """
        self.layout = layout
        self._name = manifest.name
        self._context_tokens = manifest.context_tokens
        self._tokenizer = ChatTokenizer(directory)
        self._end_ids = self._tokenizer.end_ids
        with load_errors(directory):
            self._generator: Any = ctranslate2.Generator(
                str(directory),
                device=layout.device,
                compute_type=layout.compute_type,
                inter_threads=layout.slots,
                intra_threads=layout.threads,
            )
            self._warm_up()

    def encode(self, content: Content) -> list[str]:
        """The prompt's tokens."""
        tokens = self._tokenizer.encode(content.messages)
        if not tokens:
            msg = "The model's template makes nothing of the input: send some text."
            raise ConversationError(msg, code="empty_prompt", param="input")
        if len(tokens) >= self._context_tokens:
            msg = (
                f"The input has {len(tokens)} tokens, and {self._name} takes "
                f"{self._context_tokens} with the answer: shorten it."
            )
            raise ContextLengthError(msg, param="input")
        return tokens

    def room(self, prompt: Sequence[str]) -> int:
        """What the prompt leaves of the context."""
        return self._context_tokens - len(prompt)

    def encode_answer(self, text: str) -> list[str]:
        """The tokens of an answer's beginning."""
        return self._tokenizer.encode_answer(text)

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """Generated tokens in the form that prompts have."""
        return self._tokenizer.token_names(tokens)

    def detokenizer(self, begun: Sequence[str]) -> Detokenizer:
        """A fresh one for an answer that goes on after the tokens `begun`."""
        return self._tokenizer.detokenizer(begun)

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        """Run one batch to its end."""
        with engine_errors():
            self._generator.generate_batch(
                [prompt.tokens + prompt.begun for prompt in prompts],
                max_length=max_tokens,
                include_prompt_in_result=False,
                **decoding(options, self._end_ids),
                callback=step_callback(len(prompts), frozenset(self._end_ids), observer),
            )

    def close(self) -> None:
        """Free the model. Left to the interpreter's exit, its threads can abort the process."""
        self._generator.unload_model()
        self._generator = None

    def _warm_up(self) -> None:
        prompt = self.encode(Content(messages=(ChatMessage(role="user", content="Hello"),)))
        self._generator.generate_batch(
            [prompt] * self.layout.slots,
            max_batch_size=1,
            max_length=_WARM_UP_TOKENS,
            include_prompt_in_result=False,
        )


def decoding(options: SamplingOptions, end_ids: Sequence[int]) -> dict[str, Any]:
    """How CTranslate2 chooses tokens, in a decoder and in the second half of a translator."""
    greedy = options.temperature == 0
    return {
        "beam_size": 1,  # more has no callback
        "end_token": end_ids or None,
        "sampling_topk": 1 if greedy else _WHOLE_VOCABULARY,
        "sampling_topp": 1.0 if greedy else options.top_p,
        "sampling_temperature": 1.0 if greedy else options.temperature,
        "return_scores": True,
    }


def step_callback(
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
        elif observer.on_token(index, token, result.log_prob):
            running[index] = False
        if index == last:
            while last >= 0 and not running[last]:
                last -= 1
            observer.on_step()
        return not running[index]

    return on_result
