"""Orders: up to five lines, a place, and what the customer changes on the way."""

# ruff: noqa: ISC004 - a long template goes over two lines

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_models.amendments import amend, correct_inline
from penstock_models.articles import Line, draw_line, say_line
from penstock_models.names import place
from penstock_models.scene import Answer, shield

if TYPE_CHECKING:
    from penstock_models.scene import Scene

PLACE_STATED = 0.9
LISTS = (
    (
        "{I'd like|I would like|I want|I need|We need|We'd like} {|to order |to buy |to get }"
        "<lines><to>.",
        "{Please send|Please ship|Can you send|Could you send} {me|us} <lines><to>{.|?}",
        "{Can|Could|May} {I|we} {order|have|get} <lines><to>{|, please}?",
        "{Order|New order|Our order}: <lines><to>.",
        "<lines><to>{, please|}.",
        "{I am|We are} {looking to order|going to need|running out of a few things, so please send}"
        " <lines><to>.",
    ),
    (
        "{Ich möchte|Ich hätte gern|Wir brauchen|Ich brauche} <lines><to>{| bestellen}.",
        "{Bitte schicken|Bitte senden|Schicken} Sie {mir|uns} {|bitte }<lines><to>.",
        "{Kann ich|Können wir|Könnte ich} <lines><to> {bestellen|bekommen|haben}?",
        "{Bestellung|Neue Bestellung|Unsere Bestellung}: <lines><to>.",
        "<lines><to>{, bitte|}.",
    ),
)
TO = ((" to <place>", " for delivery to <place>"), (" nach <place>", " zur Lieferung nach <place>"))
AFTER = (
    (
        "{Please send|Send|Ship|Please deliver} {it|everything|all of it|them} to <place>{|, "
        "please}.",
        "{The delivery address|The address|Our office|My place} is in <place>.",
        "{Delivery|Shipping} to <place>{|, please}.",
        "It {should go|goes|has to go} to <place>.",
    ),
    (
        "Bitte {alles |}nach <place> {liefern|schicken|senden}.",
        "{Die Lieferadresse|Unser Büro|Die Adresse} ist in <place>.",
        "{Lieferung|Versand} {bitte |}nach <place>.",
        "{Das|Alles} {soll|muss} nach <place>{| gehen}.",
    ),
)
BEFORE = (
    ("{For|It's for} our {office|shop|team} in <place>:", "{This goes to|Delivery to} <place>:"),
    (
        "{Für|Es ist für} {unser Büro|unseren Laden} in <place>:",
        "{Das geht|Lieferung} nach <place>:",
    ),
)
MOVED = (
    (
        "{Wait|Sorry|Actually}, {send|ship} {it|everything} to <place> instead.",
        "{No|Hm}, not to <old>, {rather|please} to <place>.",
        "{Correction|Sorry}: the place is <place>, not <old>.",
    ),
    (
        "{Halt|Moment|Ach}, {bitte|doch} lieber nach <place>.",
        "{Nein|Hm}, nicht nach <old>, sondern nach <place>.",
        "{Korrektur|Entschuldigung}: nach <place>, nicht nach <old>.",
    ),
)


def write_order(scene: Scene) -> tuple[str, Answer]:
    """An order and its answer: the lines that remain, in the order of their first mention."""
    lines = _draw_lines(scene)
    town = place(scene) if scene.chance(PLACE_STATED) else None
    listed = _join(scene, [_mention(scene, line) for line in lines])
    text = _place_first(scene, scene.say(*LISTS), listed, town)
    changes = scene.by_grade(0, int(scene.chance(scene.medium_changes)), 1 + int(scene.chance(0.4)))
    sentences = [amend(scene, lines) for _ in range(changes)]
    if town is not None and scene.chance(scene.by_grade(0.0, 0.06, 0.15)):
        old, town = town, place(scene)
        moved = scene.say(*MOVED).replace("<place>", shield(town))
        sentences.append(moved.replace("<old>", shield(old)))
    answer: Answer = {"intent": "order", "items": [line.answer() for line in lines]}
    if town is not None:
        answer["place"] = scene.cased(town)
    return " ".join([text, *sentences]), answer


def _draw_lines(scene: Scene) -> list[Line]:
    count = scene.pick(scene.by_grade((1, 1, 2), (1, 2, 2, 3), (3, 3, 4, 4, 5)))
    lines: list[Line] = []
    while len(lines) < count:
        line = draw_line(scene)
        if all(line.item.lower() != other.item.lower() for other in lines):
            lines.append(line)
    return lines


def _mention(scene: Scene, line: Line) -> str:
    text = say_line(scene, line)
    if scene.chance(scene.by_grade(0.0, 0.06, 0.12)):
        return text + correct_inline(scene, line)
    return text


def _join(scene: Scene, mentions: list[str]) -> str:
    if len(mentions) > 2 and scene.chance(0.12):  # noqa: PLR2004 - a list with line breaks
        return "".join(f"\n- {mention}" for mention in mentions) + "\n"
    if len(mentions) == 1:
        return mentions[0]
    link = scene.pick(
        (" und ", " sowie ") if scene.german else (" and ", " and ", ", and ", " plus ")
    )
    return ", ".join(mentions[:-1]) + link + mentions[-1]


def _place_first(scene: Scene, text: str, listed: str, town: str | None) -> str:
    """Put the lines into the sentence, and the place before, inside or behind it."""
    text = text.replace("<lines>", listed)
    if town is None:
        return text.replace("<to>", "")
    draw = scene.random.random()
    if draw < 0.45:  # noqa: PLR2004 - the shares of the three positions
        text = text.replace("<to>", scene.pick(TO[scene.german]))
    elif draw < 0.85:  # noqa: PLR2004
        text = f"{text.replace('<to>', '')} {scene.say(*AFTER)}"
    else:
        text = f"{scene.say(*BEFORE)} {text.replace('<to>', '')}"
    return text.replace("<place>", shield(town))
