"""What only the worker raises.

PenstockError
 ├─ EngineError            the engine failed in mid-batch: nak, alone next time, poison after three
 ├─ HandedBackError        this worker is going: another one shall run the job, at once
 ├─ UnwantedError          cancelled or expired while its model was being loaded
 ├─ PoisonError            three processes died while they ran it: terminal, then DEAD
 ├─ TransientError
 │   └─ EngineMemoryError  the batch did not fit into memory: nak, smaller batches from now on
 └─ PermanentError
     ├─ ContextLengthError the prompt leaves no room for an answer
     ├─ ConversationError  the model cannot take such content
     └─ ModelError         the model cannot be run here: `code` and message say why
"""

from __future__ import annotations

from penstock_shared.contracts.errors import PenstockError, PermanentError, TransientError


class EngineError(PenstockError):
    """The engine raised; what it had generated is not billed."""

    default_code = "engine_failed"


class HandedBackError(PenstockError):
    """The job was given up before it ended, because this worker stops."""

    default_code = "handed_back"


class UnwantedError(PenstockError):
    """The job was cancelled, or its time ran out, while it waited for its model to be loaded."""

    default_code = "unwanted"


class PoisonError(PenstockError):
    """A job that nobody survived."""

    default_code = "poison"


class EngineMemoryError(TransientError):
    """The engine ran out of memory on this batch; a smaller one may fit."""

    default_code = "engine_out_of_memory"


class ContextLengthError(PermanentError):
    """The prompt does not fit into the model's context."""

    default_code = "context_length_exceeded"


class ConversationError(PermanentError):
    """The model cannot take such content: its template refuses it, or it is of another kind."""

    default_code = "unsupported_conversation"


class ModelError(PermanentError):
    """The model cannot be run here: broken, quarantined, too large, or removed."""

    http_status = 503
    error_type = "service_unavailable_error"
    default_code = "model_failed"
