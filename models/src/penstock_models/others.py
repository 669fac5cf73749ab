"""Messages that fit no task; the harder they are, the more they look like one that does."""

# ruff: noqa: ISC004 - a long template goes over two lines

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock_models.names import person, place, some_number

if TYPE_CHECKING:
    from penstock_models.scene import Answer, Scene

PLAIN = (
    (
        "{Thanks|Thank you} {so much|a lot|for everything}{!|.}",
        "{Tell|Write} me a {joke|poem|story} {please|about the sea|about cats}.",
        "{What|How} is the weather {today|tomorrow|going to be}?",
        "Who {won|is winning} the {match|game|election} {yesterday|last night}?",
        "{Good morning|Hello|Hi there}, {just testing|only a test|is anyone there}?",
        "What is the {capital of Peru|meaning of life|square root of nine}?",
        "asdf {jkl|qwer|hjkl} {test|lorem ipsum|foo bar}",
        "Please {stop sending me|take me off} {these emails|your newsletter|this list}.",
        "{I love|I really like} your {shop|website|style}, {keep it up|well done}!",
        "Are you {hiring|looking for staff}? I {am looking for|need} a job.",
        "{Translate|Say} good evening {in French|in Spanish}, please.",
        "Can you {help me with my homework|fix my car|recommend a film}?",
    ),
    (
        "{Danke|Vielen Dank} {für alles|nochmal|sehr}{!|.}",
        "{Erzähl|Schreib} mir {einen Witz|ein Gedicht|eine Geschichte}{.| bitte.}",
        "Wie {wird|ist} das Wetter {morgen|heute|am Wochenende}?",
        "Wer hat {gestern|am Samstag} das Spiel gewonnen?",
        "{Hallo|Guten Morgen}, {nur ein Test|ist da jemand}?",
        "Was ist {die Hauptstadt von Peru|der Sinn des Lebens|die Wurzel aus neun}?",
        "Bitte schicken Sie mir {keine E-Mails|keinen Newsletter} mehr.",
        "{Ich mag|Ich liebe} {Ihren Laden|eure Seite}, weiter so!",
        "{Suchen Sie|Sucht ihr} {Mitarbeiter|Aushilfen}? Ich {suche|brauche} eine Stelle.",
        "Können Sie mir {bei den Hausaufgaben helfen|einen Film empfehlen}?",
    ),
)
MISLEADING = (
    (
        "{I|We} bought <number> {mugs|lamps|shirts} {last year|from someone else} and {I|we} "
        "{still love|really like} them.",
        "My friend <person> {ordered|bought} <number> {chairs|bottles} {in|near} <place>, "
        "{funny story|she was happy}.",
        "{I work at|I used to work at} a company with <number> {people|employees} in <place>, "
        "{nice team|good times}.",
        "We {don't|do not} {need|want} {anything|any licences} {right now|this year}, thanks.",
        "<person> from <place> {says hello|sends regards}{.| to all of you.}",
        "{I counted|There are} <number> {stars|birds|cars} {over|in} <place> {tonight|today}.",
        "The {train|bus} to <place> {was late|took <number> minutes}, {awful|what a day}.",
        "Do you {know|remember} <person>? {We met|She lived} in <place>.",
        "{I am|We are} a {journalist|school class} from <place> and would like to "
        "{interview|visit} you.",
        "{Buy|Get} <number> {followers|backlinks} for your website today!",
    ),
    (
        "{Ich habe|Wir haben} letztes Jahr <number> {Tassen|Lampen|Hemden} gekauft und {bin|sind} "
        "{zufrieden|glücklich} damit.",
        "<person> hat {damals|früher} <number> {Stühle|Flaschen} in <place> {bestellt|gekauft}, "
        "lustige Geschichte.",
        "{Ich arbeite|Ich war} {in einer Firma|bei einem Verein} mit <number> Leuten in <place>.",
        "Wir {brauchen|wollen} {gerade|dieses Jahr} {nichts|keine Lizenzen}, danke.",
        "<person> aus <place> lässt {grüßen|schön grüßen}.",
        "{Ich habe|Wir haben} <number> {Sterne|Vögel|Autos} in <place> gezählt.",
        "Der {Zug|Bus} nach <place> {kam zu spät|hat <number> Minuten gebraucht}.",
        "Kennen Sie {vielleicht|noch} <person>? Wir waren {zusammen|oft} in <place>.",
        "{Ich bin|Wir sind} {von der Zeitung|eine Schulklasse} aus <place> und {möchten|würden} "
        "Sie gern {besuchen|interviewen}.",
    ),
)


def write_other(scene: Scene) -> tuple[str, Answer]:
    """A message for which the right answer is that it fits no task."""
    misleading = scene.chance(scene.by_grade(0.0, 0.5, 0.9))
    text = scene.say(*(MISLEADING if misleading else PLAIN))
    return fill_in(scene, text), {"intent": "other"}


def fill_in(scene: Scene, text: str) -> str:
    """Replace `<person>`, `<place>` and `<number>` by ones that no answer holds."""
    if "<" not in text:
        return text
    if "<person>" in text:
        text = text.replace("<person>", scene.cased(person(scene)))
    if "<place>" in text:
        text = text.replace("<place>", scene.cased(place(scene)))
    if "<number>" in text:
        text = text.replace("<number>", some_number(scene))
    return text
