"""What only the worker raises.

PenstockError
 ├─ EngineError            the engine failed in mid-batch: nak, alone next time, poison after three
 ├─ HandedBackError        this worker is going: another one shall run the job, at once
 └─ PermanentError
     ├─ ContextLengthError the prompt leaves no room for an answer
     └─ ConversationError  the model's chat template refuses the conversation
"""

from __future__ import annotations

from penstock_shared.contracts.errors import PenstockError, PermanentError


class EngineError(PenstockError):
    """The engine raised; what it had generated is not billed."""

    default_code = "engine_failed"


class HandedBackError(PenstockError):
    """The job was given up before it ended, because this worker stops."""

    default_code = "handed_back"


class ContextLengthError(PermanentError):
    """The prompt does not fit into the model's context."""

    default_code = "context_length_exceeded"


class ConversationError(PermanentError):
    """The model's chat template cannot render this conversation."""

    default_code = "unsupported_conversation"
