"""Names of people, places and companies, and stray numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_models import lexicon, numerals
from penstock_models.words import Split

if TYPE_CHECKING:
    from penstock_models.scene import Scene

REAL_SHARE = 0.08  # of names in training that are real ones


def place(scene: Scene) -> str:
    """A town."""
    if _real(scene):
        return scene.pick(lexicon.REAL_PLACES)
    name, draw = scene.invent(), scene.random.random()
    if draw < 0.7:  # noqa: PLR2004 - seven towns in ten have a single word
        return name
    if draw < 0.9:  # noqa: PLR2004
        return f"{scene.pick(('New', 'Bad', 'Port', 'St.', 'San', 'North', 'Upper', 'Neu'))} {name}"
    return f"{name} {scene.pick(('am', 'on', 'an der', 'de', 'upon'))} {scene.invent()}"


def person(scene: Scene) -> str:
    """A first and a last name."""
    first = scene.pick(lexicon.REAL_FIRST_NAMES) if _real(scene) else scene.invent()
    last = scene.pick(lexicon.REAL_LAST_NAMES) if _real(scene) else scene.invent()
    draw = scene.random.random()
    if draw < 0.05:  # noqa: PLR2004 - some people have two last names
        last = f"{last}-{scene.invent()}"
    elif draw < 0.1:  # noqa: PLR2004 - or one with a particle
        last = f"{scene.pick(('van', 'von', 'de', 'Mac', 'Mc'))} {last}"
    elif draw < 0.13:  # noqa: PLR2004 - or give only an initial
        first = f"{first[0]}."
    return f"{first} {last}"


def company(scene: Scene) -> str:
    """A company, with or without its legal form."""
    name = scene.pick(lexicon.REAL_COMPANIES) if _real(scene) else scene.invent()
    if scene.chance(0.15):
        name = f"{name} {scene.invent()}"
    return f"{name} {scene.pick(lexicon.COMPANY_ENDINGS)}" if scene.chance(0.6) else name


def in_words(scene: Scene, number: int) -> str:
    """`number` (at most 999) in words of the scene's language."""
    if scene.german:
        return "ein" if number == 1 else numerals.german(number)
    words = numerals.english(number, joined_by_and=scene.chance(0.7))
    if words.startswith("one hundred") and scene.chance(0.5):
        return "a" + words[3:]
    return words.replace("-", " ") if scene.chance(0.2) else words


def some_number(scene: Scene) -> str:
    """A number from 2 to 400 that means nothing to the answer."""
    number = 2 + int(scene.random.random() ** 3 * 399)
    return in_words(scene, number) if scene.chance(0.5) else str(number)


def _real(scene: Scene) -> bool:
    return scene.split is Split.TRAIN and scene.chance(REAL_SHARE)
