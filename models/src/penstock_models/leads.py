"""Leads: somebody from a company wants a number of seats."""

# ruff: noqa: ISC004 - a long template goes over two lines

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_models.articles import say_number
from penstock_models.names import company, person, some_number
from penstock_models.scene import Answer, shield

if TYPE_CHECKING:
    from penstock_models.scene import Scene

WHO = (
    (
        "{My name is|I am|I'm|This is} <name> {from|of|at|with} <company>.",
        "{My name is|I'm} <name> and I {work for|work at|run} <company>.",
        "<name> here, {I'm with|from|calling from} <company>.",
        "<name>, <company>.",
        "{I'm writing for|I am writing on behalf of} <company>, my name is <name>.",
    ),
    (
        "{Mein Name ist|Ich bin|Ich heiße} <name> {von|von der Firma|aus dem Haus} <company>.",
        "{Ich heiße|Mein Name ist} <name> und ich {arbeite|bin} bei <company>.",
        "Hier ist <name> von <company>.",
        "<name>, <company>.",
        "Ich schreibe für <company>, mein Name ist <name>.",
    ),
)
WANT = (
    (
        "{We need|We'd like|We are looking for|We want} {licences|seats|accounts} for <n> "
        "{people|users|employees|colleagues}.",
        "{We need|We'd like|I'd like a quote for|Please offer us} <n> {seats|licences|user "
        "accounts}.",
        "{What would|How much would} <n> {seats|licences} cost {us|per year}?",
        "{Could|Can} {you|someone} {call me|send us an offer} {about|for} <n> {seats|licences}?",
        "{Our team|Our sales team|Our department} of <n> {people|users} {would like|wants} to use "
        "your {product|software}.",
    ),
    (
        "Wir {brauchen|suchen|möchten} {Lizenzen|Plätze|Zugänge} für <n> {Leute|Mitarbeiter|"
        "Personen|Nutzer}.",
        "Wir {brauchen|hätten gern|suchen} <n> {Lizenzen|Plätze|Zugänge}.",
        "Was {würden|kosten} <n> {Lizenzen|Plätze} {kosten|im Jahr}?",
        "{Können|Könnten} Sie uns <n> {Lizenzen|Plätze} anbieten?",
        "{Unser Team|Unsere Abteilung} mit <n> {Leuten|Nutzern} möchte Ihr Produkt {nutzen|"
        "einsetzen}.",
    ),
)
DISTRACT = (
    (
        "{We have|There are} <x> {employees|people} in total{.|, but not all will use it.}",
        "We {were founded|moved here} {in 19<y>|in 20<y>|<x> years ago}.",
        "<other> {told us|told me} about {you|your product}.",
        "{Right now|So far} we use {something|a tool} from <firm>.",
        "My {colleague|boss} <other> is {in copy|also interested}.",
    ),
    (
        "Insgesamt {haben|sind} wir <x> {Mitarbeiter|Leute}.",
        "{Uns gibt es|Wir sind hier} seit <x> Jahren.",
        "<other> hat {uns|mir} von Ihnen erzählt.",
        "{Bisher|Im Moment} nutzen wir {etwas|ein Werkzeug} von <firm>.",
        "{Mein Kollege|Meine Chefin} <other> {liest mit|ist auch interessiert}.",
    ),
)
CORRECT_SEATS = (
    (
        "{Sorry|Actually|Wait}, make that <n>{| seats| licences}.",
        "{No|Hm}, <n>, not <old>.",
        "{I just heard|My boss says} it will be <n>, {not|instead of} <old>.",
    ),
    (
        "{Moment|Ach|Halt}, doch {lieber |}<n>{| Lizenzen| Plätze}.",
        "{Nein|Hm}, <n>, nicht <old>.",
        "{Ich höre gerade|Mein Chef sagt}, es sind <n> statt <old>.",
    ),
)
CORRECT_COMPANY = (
    (
        "{Sorry|Oh}, the company is {called |now called |}<company>, not <oldfirm>.",
        "{We have been renamed|Our new name is}: <company> instead of <oldfirm>.",
    ),
    (
        "{Ach|Pardon}, die Firma heißt {jetzt |}<company>, nicht <oldfirm>.",
        "{Wir wurden umbenannt|Unser neuer Name}: <company> statt <oldfirm>.",
    ),
)


def write_lead(scene: Scene) -> tuple[str, Answer]:
    """A lead and its answer; a number of seats that is not stated is left out."""
    name, firm = person(scene), company(scene)
    seats = draw_seats(scene) if scene.chance(0.95) else None
    sentences = [_who(scene, name, firm)]
    if seats is not None:
        sentences.insert(int(scene.chance(0.8)), _say(scene, scene.say(*WANT), seats))
    else:
        sentences.append("Bitte ein Angebot." if scene.german else "Please send us an offer.")
    for _ in range(scene.by_grade(0, int(scene.chance(0.5)), 1 + int(scene.chance(0.5)))):
        at = int(scene.random.random() * (len(sentences) + 1))
        sentences.insert(at, _distract(scene))
    if seats is not None and scene.chance(scene.by_grade(0.0, 0.25, 0.5)):
        old, seats = seats, _other_seats(scene, seats)
        text = _say(scene, scene.say(*CORRECT_SEATS), seats)
        sentences.append(text.replace("<old>", shield(_number(scene, old))))
    if scene.chance(scene.by_grade(0.0, 0.05, 0.15)):
        old_firm, firm = firm, company(scene)
        text = scene.say(*CORRECT_COMPANY).replace("<oldfirm>", shield(old_firm))
        sentences.append(text.replace("<company>", shield(firm)))
    answer: Answer = {"intent": "lead", "name": scene.cased(name), "company": scene.cased(firm)}
    if seats is not None:
        answer["seats"] = seats
    return " ".join(sentences), answer


def draw_seats(scene: Scene) -> int:
    """A number of seats, 2 to 20,000; large ones are rare."""
    draw = scene.random.random()
    if draw < scene.by_grade(0.6, 0.4, 0.3):
        return 2 + int(scene.random.random() * 98)
    if draw < scene.by_grade(0.95, 0.85, 0.8):
        return 2 + int(scene.random.random() * 998)
    return 1000 + int(scene.random.random() * 19000)


def _other_seats(scene: Scene, seats: int) -> int:
    while True:
        other = draw_seats(scene)
        if other != seats:
            return other


def _who(scene: Scene, name: str, firm: str) -> str:
    return scene.say(*WHO).replace("<name>", shield(name)).replace("<company>", shield(firm))


def _say(scene: Scene, template: str, seats: int) -> str:
    return template.replace("<n>", shield(_number(scene, seats)))


def _number(scene: Scene, seats: int) -> str:
    if seats > 999 and scene.chance(0.25):  # noqa: PLR2004 - thousands are often grouped
        return f"{seats:,}".replace(",", "." if scene.german else ",")
    return say_number(scene, seats)


def _distract(scene: Scene) -> str:
    text = scene.say(*DISTRACT)
    if "<other>" in text:
        text = text.replace("<other>", shield(person(scene)))
    if "<firm>" in text:
        text = text.replace("<firm>", shield(company(scene)))
    if "<y>" in text:
        text = text.replace("<y>", f"{int(scene.random.random() * 26):02d}")
    return text.replace("<x>", shield(some_number(scene))) if "<x>" in text else text
