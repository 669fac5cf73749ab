"""Changes of mind: each both says something and changes what the answer must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_models import lexicon
from penstock_models.articles import draw_line, draw_quantity, say_line, say_number
from penstock_models.scene import shield

if TYPE_CHECKING:
    from penstock_models.articles import Line
    from penstock_models.scene import Scene

INLINE = (
    (", no, make that {n}", ", sorry, {n}", " - no wait, {n}", ", no, {n}", ", er, I mean {n}"),
    (", nein, doch {n}", ", Entschuldigung, {n}", " - halt, {n}", ", nein, lieber {n}"),
)
REQUANTIFY = (
    (
        "{Actually|Sorry|Hm|Wait}, make that <n> <item>.",
        "{Actually|Oh}, we {need|want} <n> <item>, not <old>.",
        "Please change the <item> to <n>.",
        "{Sorry|Correction}: <n> <item> instead of <old>.",
    ),
    (
        "{Ach|Moment|Halt}, doch lieber <n> <item>.",
        "{Eigentlich|Nein,} brauchen wir <n> <item>, nicht <old>.",
        "Bei <item> bitte auf <n> ändern.",
        "{Korrektur|Entschuldigung}: <n> <item> statt <old>.",
    ),
)
CANCEL = (
    (
        "{Actually|On second thought|Hm}, {forget|drop|skip} the <item>.",
        "Please {leave out|cancel|remove} the <item> {again|after all}.",
        "{We|I} {don't|do not} need the <item> {any more|after all}.",
        "{Scratch|No} <item>, {please|we have some}.",
        "Everything but the <item>, please.",
    ),
    (
        "{Ach|Moment}, {vergessen|streichen} Sie <item> {wieder|bitte}.",
        "<item> {brauche ich|brauchen wir} doch nicht.",
        "Bitte <item> {weglassen|wieder streichen|stornieren}.",
        "{Doch kein|Ohne} <item>, {bitte|danke}.",
    ),
)
RESIZE = (
    ("The <item> in size <size>, {please|rather}.", "{Make|And} the <item> size <size>{.|, ok?}"),
    ("<item> {bitte|lieber} in Größe <size>.", "{Und|Ach ja,} <item> in <size>."),
)
RECOLOUR = (
    ("The <item> {should be|must be} <colour>.", "{Make|I'd like} the <item> <colour>, please."),
    ("<item> {bitte|lieber} in <colour>.", "{Und|Ach ja,} <item> bitte in <colour>."),
)
ADD = (
    ("{Oh, and|And|Also} <line>{, please|}.", "{Please add|I forgot,} <line>{ too|}."),
    ("{Ach, und|Und|Außerdem} <line>{ bitte|}.", "{Dazu noch|Ich vergaß:} <line>."),
)


def correct_inline(scene: Scene, line: Line) -> str:
    """A correction right behind the line: "three mugs, no, make that four"."""
    line.quantity = _another_quantity(scene, line.quantity)
    template = scene.pick(INLINE[scene.german])
    return template.replace("{n}", shield(_number(scene, line)))


def amend(scene: Scene, lines: list[Line]) -> str:
    """A sentence that changes `lines`; at least one of them stays."""
    draw, line = scene.random.random(), scene.pick(lines)
    if draw < 0.35 and len(lines) > 1:  # noqa: PLR2004 - the shares of the changes
        lines.remove(line)
        return scene.say(*CANCEL).replace("<item>", shield(line.many))
    if draw < 0.65:  # noqa: PLR2004
        return _requantify(scene, line)
    if draw < 0.75:  # noqa: PLR2004
        line.size = scene.pick(lexicon.SIZES)
        text = scene.say(*RESIZE).replace("<size>", shield(line.size))
    elif draw < 0.85:  # noqa: PLR2004
        line.colour = scene.pick(lexicon.COLOUR_NAMES)
        said = lexicon.GERMAN_COLOURS[line.colour][1] if scene.german else line.colour
        text = scene.say(*RECOLOUR).replace("<colour>", shield(said))
    else:
        return _add(scene, lines)
    return text.replace("<item>", shield(line.many))


def _add(scene: Scene, lines: list[Line]) -> str:
    added = draw_line(scene)
    if len(lines) >= 5 or any(_alike(added, line) for line in lines):  # noqa: PLR2004
        return _requantify(scene, lines[-1])
    lines.append(added)
    return scene.say(*ADD).replace("<line>", say_line(scene, added))


def _alike(one: Line, other: Line) -> bool:
    return one.item.lower() == other.item.lower()


def _requantify(scene: Scene, line: Line) -> str:
    text, old = scene.say(*REQUANTIFY), line.quantity
    line.quantity = _another_quantity(scene, old)
    text = text.replace("<old>", shield(say_number(scene, old)))
    return text.replace("<n>", shield(_number(scene, line))).replace("<item>", shield(line.many))


def _number(scene: Scene, line: Line) -> str:
    said = say_number(scene, line.quantity)
    return "eins" if said == "ein" else said


def _another_quantity(scene: Scene, quantity: int) -> int:
    while True:
        other = max(2, draw_quantity(scene))
        if other != quantity:
            return other
