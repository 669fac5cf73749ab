"""One line of an order: the article, how many of it, its size and colour, and how people say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock_models import lexicon
from penstock_models.names import in_words
from penstock_models.scene import Answer, shield

if TYPE_CHECKING:
    from penstock_models.scene import Scene


@dataclass
class Line:
    """What the customer wants of one article; `many` and `one` are how they call it."""

    item: str
    one: str
    many: str
    article: str
    quantity: int
    size: str | None = None
    colour: str | None = None
    invented: bool = True

    def answer(self) -> Answer:
        """The line as the answer holds it; what was not stated is left out."""
        answer: Answer = {"item": self.item, "quantity": self.quantity}
        if self.size:
            answer["size"] = self.size
        if self.colour:
            answer["color"] = self.colour
        return answer


def draw_line(scene: Scene) -> Line:
    """An article with a quantity, and perhaps a size and a colour."""
    line = _draw_article(scene)
    described = scene.by_grade(0.25, 0.35, 0.35)
    line.size = scene.pick(lexicon.SIZES) if scene.chance(described) else None
    line.colour = scene.pick(lexicon.COLOUR_NAMES) if scene.chance(described) else None
    return line


def draw_quantity(scene: Scene) -> int:
    """How many: few when easy, up to 999 when hard."""
    draw = scene.random.random()
    if draw < scene.by_grade(0.8, 0.55, 0.4):
        return 1 + int(scene.random.random() * 12)
    if draw < scene.by_grade(1.0, 0.9, 0.65):
        return 1 + int(scene.random.random() * 99)
    return 1 + int(scene.random.random() * 999)


def _draw_article(scene: Scene) -> Line:
    quantity, draw = draw_quantity(scene), scene.random.random()
    if draw < 0.36:  # noqa: PLR2004 - a good third are articles that people know
        noun = scene.pick(lexicon.GERMAN_NOUNS if scene.german else lexicon.ENGLISH_NOUNS)
        one, many = noun.singular, noun.plural
        return Line(scene.cased(one), one, many, noun.article, quantity, invented=False)
    name = scene.invent()
    if not scene.german and scene.chance(0.5):
        name = name.lower()
    if draw < 0.5 and not scene.german:  # noqa: PLR2004 - some of them with a brand
        noun = scene.pick(lexicon.ENGLISH_NOUNS)
        one, many = f"{name} {noun.singular}", f"{name} {noun.plural}"
        return Line(scene.cased(one), one, many, "a", quantity)
    if draw > 0.95:  # noqa: PLR2004 - and some that are called by a code
        name = f"{name[:3].upper()}-{int(scene.random.random() * 900) + 10}"
    article = scene.pick(("ein", "eine", "einen")) if scene.german else "a"
    return Line(scene.cased(name), name, name, article, quantity)


def say_number(scene: Scene, number: int) -> str:
    """A quantity in words or in digits."""
    by_words = scene.by_grade(0.35, 0.5, 0.6)
    if number == 12 and scene.chance(0.15):  # noqa: PLR2004 - a dozen
        return "ein Dutzend" if scene.german else "a dozen"
    if number <= scene.by_grade(12, 99, 999) and scene.chance(by_words):
        return in_words(scene, number)
    return str(number)


def say_line(scene: Scene, line: Line) -> str:
    """The line as a customer says it, such as "three blue mugs in size L"."""
    name = shield(line.one if line.quantity == 1 else line.many)
    if line.quantity == 1 and scene.chance(0.7):
        number = shield(line.article)
    else:
        number = shield(say_number(scene, line.quantity))
    if scene.chance(0.12):
        return _say_as_list(scene, line, name)
    if scene.german:
        return _say_german(scene, line, number, name)
    return _say_english(scene, line, number, name)


def _say_as_list(scene: Scene, line: Line, name: str) -> str:
    parts = [line.size and shield(line.size), line.colour and shield(say_colour(scene, line))]
    extra = ", ".join(part for part in parts if part)
    number = shield(str(line.quantity))
    bracket = f" ({extra})" if extra else ""
    return scene.pick(
        (f"{number}x {name}{bracket}", f"{number} x {name}{bracket}", f"{name}{bracket}: {number}")
    )


def say_colour(scene: Scene, line: Line) -> str:
    """The colour of `line` as a word by itself."""
    assert line.colour is not None  # noqa: S101 - only called for lines with a colour
    return lexicon.GERMAN_COLOURS[line.colour][1] if scene.german else line.colour


def _say_english(scene: Scene, line: Line, number: str, name: str) -> str:
    before: list[str] = []
    after: list[str] = []
    if line.colour:
        (before if scene.chance(0.6) else after).append(shield(line.colour))
    if line.size:
        word = lexicon.SIZE_WORDS.get(line.size)
        if word and scene.chance(0.25):
            before.insert(0, shield(word[0]))
        else:
            after.append(f"{scene.pick(('size ', 'size ', ''))}{shield(line.size)}")
    of_the = scene.chance(0.06) and line.quantity > 1
    text = " ".join([number, *(["of the"] if of_the else []), *before, name])
    if not after:
        return text
    return text + scene.pick((f" in {' and '.join(after)}", f" ({', '.join(after)})"))


def _say_german(scene: Scene, line: Line, number: str, name: str) -> str:
    after, text = [], f"{number} {name}"
    if line.colour:
        adjective, noun = lexicon.GERMAN_COLOURS[line.colour]
        if line.quantity > 1 and scene.chance(0.5):
            text = f"{number} {shield(adjective)} {name}"
        else:
            after.append(shield(noun))
    if line.size:
        after.append(f"{scene.pick(('Größe ', 'Größe ', ''))}{shield(line.size)}")
    if not after:
        return text
    return text + scene.pick((f" in {' und '.join(after)}", f" ({', '.join(after)})"))
