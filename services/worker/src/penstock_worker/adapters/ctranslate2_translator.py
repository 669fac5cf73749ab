"""CTranslate2's encoders and decoders: one text in, another out.

The callback of `translate_batch` is the decoder's: a token of an item at a time, True stops that
item alone. It speaks of the tokens of the target prefix as well, and its log-probabilities need
`return_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import ctranslate2

from penstock_shared.contracts.models import ModelLayout, ModelManifest, TranslationOptions
from penstock_shared.contracts.requests import Content
from penstock_worker.adapters.ctranslate2_engine import decoding, step_callback
from penstock_worker.adapters.ctranslate2_errors import engine_errors, load_errors
from penstock_worker.adapters.text_tokenizer import TextTokenizer
from penstock_worker.errors import ContextLengthError, ConversationError
from penstock_worker.ports import BatchObserver, Detokenizer, Prompt, SamplingOptions

_WARM_UP_TOKENS: Final = 4
_NO_LIMIT: Final = 0  # too long sources are refused, not cut in silence


class CTranslate2Translator:
    """One encoder and decoder in CTranslate2's format, with the tokenizer of both beside it."""

    def __init__(self, directory: Path, manifest: ModelManifest, layout: ModelLayout) -> None:
        """Load the model and run it once.

        Raises:
            PermanentError: the files are incomplete, not CTranslate2's, or not what the manifest
                says.
            EngineMemoryError: it does not fit into memory.
        """
        self.layout = layout
        self._name = manifest.name
        self._context_tokens = manifest.context_tokens
        self._frame = manifest.translation or TranslationOptions()
        self._tokenizer = TextTokenizer(directory)
        self._tokenizer.check_known(_named(self._frame), "'translation' in penstock.json")
        self._end_ids = self._tokenizer.end_ids
        with load_errors(directory):
            self._translator: Any = ctranslate2.Translator(
                str(directory),
                device=layout.device,
                compute_type=layout.compute_type,
                inter_threads=layout.slots,
                intra_threads=layout.threads,
            )
            self._warm_up()

    def encode(self, content: Content) -> list[str]:
        """The source's tokens, framed as the model was trained."""
        if len(content.texts) != 1 or not content.texts[0].strip():
            msg = f"{self._name} translates one text at a time: send one, and not an empty one."
            raise ConversationError(msg, param="input")
        said = self._tokenizer.encode_said(content.texts[0])
        tokens = [*self._frame.source_prefix, *said, *self._frame.source_suffix]
        if len(tokens) > self._context_tokens:
            msg = (
                f"The text has {len(tokens)} tokens, and {self._name} takes "
                f"{self._context_tokens}: cut it into several."
            )
            raise ContextLengthError(msg, param="input")
        return tokens

    def room(self, prompt: Sequence[str]) -> int:  # noqa: ARG002  the source has positions of its own
        """The decoder's positions; the source takes none of them."""
        return max(1, self._context_tokens - len(self._frame.target_prefix))

    def encode_answer(self, text: str) -> list[str]:
        """The tokens of a translation's beginning."""
        return self._tokenizer.encode_answer(text)

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """Generated tokens in the form that prompts have."""
        return self._tokenizer.token_names(tokens)

    def detokenizer(self, begun: Sequence[str]) -> Detokenizer:
        """A fresh one for a translation that goes on after the tokens `begun`."""
        return self._tokenizer.detokenizer(begun)

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        max_tokens: int,
        observer: BatchObserver,
    ) -> None:
        """Run one batch to its end."""
        begun = [[*self._frame.target_prefix, *prompt.begun] for prompt in prompts]
        lengths = [len(tokens) for tokens in begun]
        heard = step_callback(len(prompts), frozenset(self._end_ids), observer)
        with engine_errors():
            self._translator.translate_batch(
                [prompt.tokens for prompt in prompts],
                begun,
                max_input_length=_NO_LIMIT,
                max_decoding_length=max(lengths, default=0) + max_tokens,
                min_decoding_length=0,
                **decoding(options, self._end_ids),
                callback=_after(lengths, max_tokens, heard),
            )

    def close(self) -> None:
        """Free the model. Left to the interpreter's exit, its threads can abort the process."""
        self._translator.unload_model()
        self._translator = None

    def _warm_up(self) -> None:
        source = self.encode(Content(texts=("Hello",)))
        self._translator.translate_batch(
            [source] * self.layout.slots,
            max_batch_size=1,
            beam_size=1,
            max_decoding_length=_WARM_UP_TOKENS,
        )


def _after(
    begun: Sequence[int], max_tokens: int, heard: Callable[[Any], bool]
) -> Callable[[Any], bool]:
    """Pass on what comes after each item's prefix, and at most `max_tokens` of it.

    Steps count from the start of the target, prefix included, so an item with a short prefix would
    else get what the longest one takes.
    """

    def on_result(result: Any) -> bool:
        generated: int = result.step + 1 - begun[result.batch_id]
        return generated > 0 and (heard(result) or generated >= max_tokens)

    return on_result


def _named(frame: TranslationOptions) -> tuple[str, ...]:
    return frame.source_prefix + frame.source_suffix + frame.target_prefix
