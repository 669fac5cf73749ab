"""What surrounds a request as people write it: greetings, small talk, typing errors."""

# ruff: noqa: ISC004 - a long template goes over two lines

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock_models.others import fill_in
from penstock_models.scene import CLOSE, OPEN, shield

if TYPE_CHECKING:
    from penstock_models.scene import Scene

SHIELDED = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
WORD = re.compile(r"[^\W\d_]{4,}")
NEIGHBOURS = dict(
    zip("abcdefghijklmnopqrstuvwxyz", "svxfrdghjuklonmkpatrfyqcdsxz"[:26], strict=True)
)

GREETINGS = (
    ("{Hi|Hello|Hey|Good morning|Good afternoon|Hi there|Dear team|Hello everyone}{,|!|.}",),
    ("{Hallo|Guten Tag|Guten Morgen|Hi|Moin|Servus|Liebes Team|Grüß Gott}{,|!|.}",),
)
FAREWELLS = (
    (
        "{Thanks|Thank you|Many thanks|Cheers|Thanks a lot}{!|.}",
        "{Best|Kind|Warm} regards{.|!|}",
        "{Have a nice day|Looking forward to your answer|Talk soon|Thanks in advance}{!|.}",
    ),
    (
        "{Danke|Vielen Dank|Besten Dank|Danke schön}{!|.}",
        "{Viele|Beste|Liebe|Schöne} Grüße{.|!|}",
        "{Schönen Tag noch|Ich freue mich auf Ihre Antwort|Bis bald|Danke im Voraus}{!|.}",
    ),
)
SMALL_TALK = (
    (
        "{I hope|Hope} you {are well|had a nice weekend|are having a good day}.",
        "The weather {here |}is {awful|lovely|quite strange} {today|again|this week}.",
        "{A friend|My sister|Our neighbour} {told me|keeps talking} about your shop.",
        "I {have never|haven't} {written to you|done this} before{, so bear with me|}.",
        "Sorry for {the long message|my English|all the questions|bothering you}.",
        "{It's|It is} {rather|a bit|quite} urgent{|, I'm afraid}.",
        "I {tried|wanted} to call you {yesterday|this morning}, but {nobody answered|the line was "
        "busy}.",
        "We {really |}{love|like} {your work|what you do|your website}.",
        "{My|Our} {dog|cat|printer|coffee machine} {is ill|just broke|has gone mad} {again|today}.",
        "{I am typing this on my phone|I only have a minute|It has been a long day}.",
    ),
    (
        "{Ich hoffe|Wir hoffen}, {es geht Ihnen gut|Sie hatten ein schönes Wochenende}.",
        "Das Wetter ist {hier |}{heute|mal wieder} {furchtbar|herrlich|seltsam}.",
        "{Eine Freundin|Meine Schwester|Unser Nachbar} hat mir von {Ihnen|Ihrem Laden} erzählt.",
        "{Ich habe|Wir haben} Ihnen noch nie geschrieben.",
        "{Entschuldigen Sie|Verzeihung für} {die lange Nachricht|die Störung|die vielen Fragen}.",
        "Es ist {ziemlich|etwas|leider} {eilig|dringend}.",
        "Ich wollte {gestern|heute früh} anrufen, aber {niemand ging ran|es war besetzt}.",
        "Wir {mögen|lieben} {Ihre Arbeit|Ihre Seite}{| sehr}.",
        "{Mein Hund|Unser Drucker|Die Kaffeemaschine} {ist krank|ist kaputt|spinnt} {heute|mal "
        "wieder}.",
        "{Ich tippe am Handy|Ich habe nur kurz Zeit|Es war ein langer Tag}.",
    ),
)
DISTRACTIONS = (
    (
        "{Greetings from|I am writing from|It is snowing in} <place>{!|.}",
        "<person> {told me|says} you are {the best|very quick}.",
        "My {daughter|son|grandmother} turned <number> {yesterday|last week}.",
        "I {have waited|was on hold} for <number> minutes {today|yesterday}.",
        "We {met|talked} {at the fair in <place>|last year in <place>}, {remember|if you recall}?",
        "I {live|grew up} in <place>, {by the way|but that doesn't matter}.",
        "{There are|We have} <number> {boxes|people|cats} {here|in the hallway} already.",
        "<person> {is away|is on holiday} this week, so {I am writing|it's me}.",
    ),
    (
        "{Grüße aus|Ich schreibe aus|Es schneit in} <place>{!|.}",
        "<person> sagt, Sie sind {die Besten|sehr schnell}.",
        "{Meine Tochter|Mein Sohn|Meine Oma} ist {gestern|letzte Woche} <number> geworden.",
        "Ich habe {heute|gestern} <number> Minuten gewartet.",
        "Wir haben uns {auf der Messe|letztes Jahr} in <place> {getroffen|gesehen}.",
        "Ich {wohne|lebe} {übrigens|eigentlich} in <place>.",
        "Hier {stehen|sind} schon <number> {Kartons|Leute|Katzen}.",
        "<person> ist diese Woche {im Urlaub|nicht da}, {darum schreibe ich|also bin ich dran}.",
    ),
)


def surround(scene: Scene, request: str) -> str:
    """The request with greetings and talk around it, typing errors outside of what is copied."""
    sentences = [request]
    for _ in range(scene.by_grade(0, int(scene.chance(0.7)), 1 + int(scene.chance(0.4)))):
        talk = _small_talk(scene)
        sentences.insert(0 if scene.chance(0.75) else len(sentences), talk)
    if scene.chance(scene.by_grade(0.4, 0.6, 0.7)):
        sentences.insert(0, scene.say(*GREETINGS))
    if scene.chance(scene.by_grade(0.25, 0.4, 0.5)):
        sentences.append(scene.say(*FAREWELLS))
    breaks = scene.chance(0.15)
    return roughen(scene, ("\n" if breaks else " ").join(sentences))


def _small_talk(scene: Scene) -> str:
    distracting = scene.chance(scene.by_grade(0.0, 0.1, 0.4))
    return fill_in(scene, scene.say(*(DISTRACTIONS if distracting else SMALL_TALK)))


def roughen(scene: Scene, text: str) -> str:
    """`text` with typing errors and sloppy case, and without the shields."""
    rate = scene.by_grade(0.0, 0.02, 0.04)
    if rate and scene.chance(0.6):
        pieces = SHIELDED.split(text)
        pieces[::2] = [_mistype(scene, piece, rate) for piece in pieces[::2]]
        text = "".join(pieces)
    else:
        text = SHIELDED.sub(r"\1", text)
    if not scene.lower and scene.chance(scene.by_grade(0.0, 0.05, 0.1)):
        text = text.rstrip(".!?")
    return text.lower() if scene.lower else text


def _mistype(scene: Scene, text: str, rate: float) -> str:
    def once(found: re.Match[str]) -> str:
        word = found.group()
        return _garble(scene, word) if scene.random.random() < rate else word

    return WORD.sub(once, text)


def _garble(scene: Scene, word: str) -> str:
    at = 1 + int(scene.random.random() * (len(word) - 2))
    draw = scene.random.random()
    if draw < 0.35:  # noqa: PLR2004 - the shares of the four kinds of errors
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if draw < 0.6:  # noqa: PLR2004
        return word[:at] + word[at + 1 :]
    if draw < 0.8:  # noqa: PLR2004
        return word[:at] + word[at] + word[at:]
    return word[:at] + NEIGHBOURS.get(word[at], word[at]) + word[at + 1 :]


__all__ = ["roughen", "shield", "surround"]
