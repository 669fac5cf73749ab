"""Customer messages as people write them: questions, orders, leads, and small talk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Door(StrEnum):
    """Through which interface a message comes."""

    WEBSOCKET = "WebSocket"
    BROKEN = "WebSocket, cut"
    SSE = "SSE"
    CHAT = "Chat"
    BACKGROUND = "background"
    JUDGED = "HTTP, judged"
    NATS = "NATS"


@dataclass(frozen=True, slots=True)
class Message:
    """One message and its door."""

    door: Door
    text: str
    model: str = "auto"
    output_schema: dict[str, Any] | None = None
    """What the answer must satisfy: it is shown once it has been checked."""


MESSAGES: Final = (
    Message(Door.WEBSOCKET, "How do I return a jacket that does not fit?"),
    Message(Door.WEBSOCKET, "I would like three blue mugs in size L, please ship them to Oslo."),
    Message(Door.WEBSOCKET, "Hi, this is Mira Teldan from Korvex. We need 250 seats."),
    Message(
        Door.WEBSOCKET,
        "Good morning! Two red lamps and one chair to Bramfurt, please. "
        "No, make that four lamps. Thanks a lot!",
    ),
    Message(Door.WEBSOCKET, "What a lovely day, I just wanted to say hello."),
    Message(
        Door.BROKEN,
        "Hello, please send five yellow chairs, three small lamps and a blue rug to Tarnholm.",
    ),
    Message(Door.SSE, "Which payment methods do you accept?"),
    Message(Door.CHAT, "Please send 12 green towels to Velmar."),
    Message(
        Door.BACKGROUND, "Guten Tag, ich möchte zwei graue Kissen nach Lundberg bestellen, bitte."
    ),
    Message(
        Door.SSE,
        "Hello, my name is Jorin Pasko and I work for Felmatic. "
        "We are about one hundred and twenty people and want to try your product.",
    ),
    Message(Door.NATS, "When will my parcel arrive?"),
    Message(Door.NATS, "One black backpack in size M to Torvik."),
    Message(Door.NATS, "Wie lange habe ich Garantie auf die Lampe?"),
    Message(
        Door.NATS,
        "Hi, I am Sela Brandor of Quintara, we want 40 seats. "
        "Also, could you tell me how I can change my password?",
    ),
)

ORDER_SCHEMA: Final = {
    "type": "object",
    "required": ["intent", "items", "place"],
    "properties": {
        "intent": {"const": "order"},
        "place": {"type": "string"},
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["item", "quantity"],
                "properties": {"quantity": {"type": "integer", "minimum": 1}},
            },
        },
    },
}
CHECKED: Final = Message(
    Door.NATS, "Please send nine white candles to Sundvik.", output_schema=ORDER_SCHEMA
)
JUDGED: Final = Message(
    Door.JUDGED, "Please send 6 blue chairs to Orlund.", output_schema=ORDER_SCHEMA
)
"""Its answer is checked before it is shown, and judged afterwards."""
TRANSLATOR: Final = "number-words-en-de"
TRANSLATED: Final = Message(Door.NATS, "three hundred and twelve boxes", model=TRANSLATOR)
