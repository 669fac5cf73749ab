"""The words that are no secret: articles, colours, sizes, and a few real names for training."""

# ruff: noqa: SIM905 - word lists are read more easily as running text

from __future__ import annotations

from typing import NamedTuple


class Noun(NamedTuple):
    """An article: singular, plural, and in German its indefinite article in the accusative."""

    singular: str
    plural: str
    article: str


def _english_nouns() -> tuple[Noun, ...]:
    regular = (
        "mug cup shirt hoodie poster notebook lamp chair table bottle backpack cap sticker pen "
        "jacket sweater bag pillow blanket towel keyboard monitor cable charger headset plate bowl "
        "candle puzzle calendar desk helmet bicycle wallet belt sock glove umbrella apron t-shirt"
    ).split()
    irregular = (
        Noun("scarf", "scarves", "a"),
        Noun("brush", "brushes", "a"),
        Noun("box", "boxes", "a"),
        Noun("watch", "watches", "a"),
        Noun("knife", "knives", "a"),
        Noun("dress", "dresses", "a"),
        Noun("diary", "diaries", "a"),
        Noun("water bottle", "water bottles", "a"),
        Noun("desk lamp", "desk lamps", "a"),
        Noun("coffee grinder", "coffee grinders", "a"),
        Noun("phone case", "phone cases", "a"),
        Noun("tote bag", "tote bags", "a"),
    )
    made = (Noun(word, f"{word}s", "an" if word[0] in "aeiou" else "a") for word in regular)
    return (*made, *irregular)


ENGLISH_NOUNS = _english_nouns()
GERMAN_NOUNS = tuple(
    Noun(*line.split())
    for line in (
        "Tasse Tassen eine|Becher Becher einen|Hemd Hemden ein|Lampe Lampen eine|"
        "Stuhl Stühle einen|Tisch Tische einen|Flasche Flaschen eine|Rucksack Rucksäcke einen|"
        "Mütze Mützen eine|Aufkleber Aufkleber einen|Stift Stifte einen|Jacke Jacken eine|"
        "Pullover Pullover einen|Tasche Taschen eine|Kissen Kissen ein|Decke Decken eine|"
        "Handtuch Handtücher ein|Tastatur Tastaturen eine|Kabel Kabel ein|Teller Teller einen|"
        "Schüssel Schüsseln eine|Kerze Kerzen eine|Kalender Kalender einen|Helm Helme einen|"
        "Fahrrad Fahrräder ein|Gürtel Gürtel einen|Socke Socken eine|Handschuh Handschuhe einen|"
        "Regenschirm Regenschirme einen|Schürze Schürzen eine|Schal Schals einen|"
        "Bürste Bürsten eine|Uhr Uhren eine|Messer Messer ein|Kleid Kleider ein|"
        "Notizbuch Notizbücher ein|Poster Poster ein|Schreibtischlampe Schreibtischlampen eine|"
        "Kaffeemühle Kaffeemühlen eine|Handyhülle Handyhüllen eine|T-Shirt T-Shirts ein"
    ).split("|")
)

# English, German in front of a plural, German as a noun.
COLOURS = (
    ("blue", "blaue", "Blau"),
    ("red", "rote", "Rot"),
    ("green", "grüne", "Grün"),
    ("black", "schwarze", "Schwarz"),
    ("white", "weiße", "Weiß"),
    ("yellow", "gelbe", "Gelb"),
    ("grey", "graue", "Grau"),
    ("brown", "braune", "Braun"),
    ("pink", "pinke", "Pink"),
    ("purple", "lila", "Lila"),
    ("orange", "orange", "Orange"),
    ("silver", "silberne", "Silber"),
)
GERMAN_COLOURS = {english: (adjective, noun) for english, adjective, noun in COLOURS}
COLOUR_NAMES = tuple(english for english, _, _ in COLOURS)

SIZES = ("XS", "S", "M", "L", "XL", "XXL")
SIZE_WORDS = {"S": ("small", "klein"), "M": ("medium", "mittel"), "L": ("large", "groß")}

# Only in training: real spans, so that the models have also seen what people call things.
REAL_PLACES = (
    "Oslo|Berlin|London|Paris|Rome|Vienna|Wien|Zürich|Hamburg|München|Köln|Madrid|Lisbon|Dublin|"
    "Prague|Warsaw|Copenhagen|Stockholm|Helsinki|New York|San Francisco|Toronto|Tokyo|Sydney|"
    "Amsterdam|Brussels|Leipzig|Stuttgart|Frankfurt am Main|Graz|Bern|Basel|Milan|Athens|Boston|"
    "Seattle|Chicago|Manchester|Edinburgh|Porto|Cape Town|Singapore|Düsseldorf|Bremen|Dresden"
).split("|")
REAL_FIRST_NAMES = (
    "Anna|Ben|Clara|David|Emma|Felix|Grace|Hannah|Ivan|Julia|Kevin|Laura|Maria|Noah|Olivia|Paul|"
    "Quentin|Rosa|Sam|Tom|Uwe|Vera|Wendy|Yusuf|Zoe|Priya|Chen|Fatima|Lukas|Sophie|Jürgen|Ingrid"
).split("|")
REAL_LAST_NAMES = (
    "Smith|Jones|Müller|Schmidt|Weber|Becker|Brown|Taylor|Garcia|Rossi|Novak|Kim|Lee|Nguyen|Patel|"
    "Johnson|Schneider|Fischer|Wagner|Hoffmann|Martin|Silva|Andersson|Hansen|O'Brien|Kowalski"
).split("|")
REAL_COMPANIES = (
    "Acme|Globex|Initech|Contoso|Northwind|Umbrella|Hooli|Wayne Enterprises|Stark Industries|"
    "Nordlicht|Sonnenschein|Blue River|Green Valley|Bright Minds|Atlas|Orion|Vertex|Pioneer"
).split("|")
COMPANY_ENDINGS = (
    *("GmbH", "AG", "Ltd", "Inc", "LLC", "& Co", "Labs", "Logistics", "Group", "Systems"),
    *("Solutions", "Partners", "KG", "Consulting", "Software", "Foods", "Energy", "& Sons"),
)
