"""Two requests in one message, answered in the order in which they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_models.faq import write_faq
from penstock_models.leads import write_lead
from penstock_models.orders import write_order

if TYPE_CHECKING:
    from penstock_models.scene import Answer, Scene

LINKS = (
    (
        "{Also,|And|Another thing:|One more thing:|By the way,|Besides,|And one question:}",
        "{Apart from that:|Second:|Oh, and before I forget:|Something else:}",
    ),
    (
        "{Außerdem:|Und|Noch etwas:|Übrigens:|Und noch eine Frage:|Nebenbei:}",
        "{Davon abgesehen:|Zweitens:|Ach, und bevor ich es vergesse:|Etwas anderes:}",
    ),
)
# "And three lamps" would be a part of the first order: a second one is always announced.
SECOND_ORDER = (
    (
        "{Second order:|A second order:|And a separate order:|Another order, please:}",
        "{And now a different order:|The next order is for a friend:}",
    ),
    (
        "{Zweite Bestellung:|Und eine zweite Bestellung:|Noch eine Bestellung, bitte:}",
        "{Und nun eine andere Bestellung:|Die nächste Bestellung ist für eine Freundin:}",
    ),
)
PAIRS = (
    (write_faq, write_order),
    (write_order, write_faq),
    (write_faq, write_lead),
    (write_lead, write_faq),
    (write_order, write_lead),
    (write_lead, write_order),
    (write_faq, write_faq),
    (write_order, write_order),
)


def write_multi(scene: Scene) -> tuple[str, Answer]:
    """Two requests in one message; the answer holds both, in their order."""
    first, second = scene.pick(PAIRS)
    one, part_one = first(scene)
    other, part_other = second(scene)
    while part_other == part_one:
        other, part_other = second(scene)
    if first is second is write_order:
        link = scene.say(*SECOND_ORDER)
    else:
        link = scene.say(*LINKS) if scene.chance(0.8) else ""
    return " ".join(filter(None, (one, link, other))), {
        "intent": "multi",
        "parts": [part_one, part_other],
    }
