"""Questions that a fixed list of topics answers."""

# ruff: noqa: ISC004 - a long template goes over two lines

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock_models.scene import Answer, Scene

# Each topic has its questions in English and in German.
QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "returns": (
        (
            "{How|Where} {can|do} I {return|send back} {an item|something|this|a product}?",
            "What is your {return|returns} policy{|, please}?",
            "How {long|many days} do I have to {return|send back} {it|a parcel|my purchase}?",
            "{I'd like to|I want to|Can I} send {something|it|this thing} back, how does {that|it} "
            "work?",
            "It {doesn't|does not} fit. {Can|May} I {return it|give it back|send it back}?",
            "Do I have to pay for {a return|returning something|the return label}?",
        ),
        (
            "Wie kann ich {etwas|einen Artikel|das|ein Produkt} {zurückgeben|zurückschicken}?",
            "Wie lange {kann|darf} ich {etwas|die Ware} zurückgeben?",
            "{Ich möchte|Ich würde gern} {etwas|das|die Ware} zurückschicken, wie geht das?",
            "Wie sind {Ihre|eure} Rückgabebedingungen?",
            "Kostet {die Rücksendung|eine Retoure|das Zurückschicken} etwas?",
        ),
    ),
    "shipping": (
        (
            "How {long does|much is|expensive is} {shipping|delivery|the delivery}?",
            "What does {shipping|delivery} cost{| these days|, roughly}?",
            "Do you {ship|deliver} {abroad|to other countries|internationally|overseas}?",
            "{When|How fast} do {parcels|orders|packages} {usually|normally} arrive?",
            "Which {carrier|parcel service} do you {use|ship with}?",
            "Is {delivery|shipping} free {above|over} a certain {amount|value}?",
        ),
        (
            "Was kostet {der Versand|die Lieferung|das Porto}?",
            "{Liefern|Versenden} Sie {auch ins Ausland|international|in andere Länder}?",
            "Wie lange dauert {der Versand|die Lieferung|die Zustellung}{ normalerweise|}?",
            "Mit welchem {Paketdienst|Versanddienst} {liefern|verschicken} {Sie|Sie denn}?",
            "Ab welchem {Betrag|Wert} ist der Versand {kostenlos|frei}?",
        ),
    ),
    "payment": (
        (
            "{Which|What} payment {methods|options} do you {accept|take|offer}?",
            "Can I pay {by|with} {card|credit card|bank transfer|PayPal|direct debit}?",
            "Do you {take|accept} {credit cards|PayPal|cash|Apple Pay}?",
            "Is it possible to pay in {instalments|parts|two parts}?",
            "{When|At what point} {will|is} my card {be charged|charged}?",
        ),
        (
            "Welche {Zahlungsarten|Zahlungsmethoden|Bezahlarten} {gibt es|bieten Sie an}?",
            "Kann ich {mit Karte|per Lastschrift|per Überweisung|mit PayPal|bar} {be|}zahlen?",
            "Nehmen Sie {Kreditkarten|PayPal|Bargeld}?",
            "Ist {Ratenzahlung|eine Zahlung in Raten} möglich?",
            "Wann wird {meine Karte|mein Konto} belastet?",
        ),
    ),
    "warranty": (
        (
            "{How long is|What about} the {warranty|guarantee}?",
            "Is there a {warranty|guarantee} on {your products|this|it}?",
            "It {broke|stopped working|fell apart} after {a month|two weeks|a year}. Is that "
            "{covered|under warranty|a warranty case}?",
            "Does the {warranty|guarantee} {cover|include} {repairs|accidents|batteries}?",
            "How do I {make a warranty claim|claim the guarantee}?",
        ),
        (
            "Wie lange {gilt die Garantie|habe ich Garantie}?",
            "Gibt es {eine Garantie|Gewährleistung} auf {Ihre Produkte|die Ware}?",
            "Es ist nach {einem Monat|zwei Wochen} kaputt gegangen. {Fällt das unter die Garantie|"
            "Ist das ein Garantiefall}?",
            "{Deckt die Garantie|Gilt die Garantie für} {auch Reparaturen|auch Akkus}{ ab|}?",
        ),
    ),
    "sizing": (
        (
            "How do I {find|choose|know} {my|the right} size?",
            "Do you have a size {chart|guide|table}?",
            "{Do|Will} your {clothes|things|products} {run|come out} {small|large|true to size}?",
            "Which size {should I take|fits me} if I am {between two sizes|quite tall}?",
            "How {should|do} I measure {myself|my head|my feet} for the {right|correct} size?",
        ),
        (
            "Wie finde ich {meine|die richtige} Größe?",
            "{Haben Sie|Gibt es} eine Größentabelle?",
            "Fallen {die Sachen|Ihre Artikel|die Größen} {klein|groß|normal} aus?",
            "Welche Größe {soll ich nehmen|passt mir}, wenn ich {zwischen zwei Größen liege|groß "
            "bin}?",
        ),
    ),
    "opening_hours": (
        (
            "{When|At what time} {do|does} {you|your shop|the store} {open|close}{| on Saturdays}?",
            "{What are|Could you tell me} your {opening hours|hours|business hours}?",
            "Are you open {on Sundays|on public holidays|today|tomorrow|on weekends}?",
            "Until when {are you open|is the shop open} {today|on Fridays|in the evening}?",
        ),
        (
            "Wann {öffnen|schließen} Sie{| samstags| heute}?",
            "{Wie sind|Was sind} {Ihre|eure} Öffnungszeiten?",
            "Haben Sie {sonntags|am Feiertag|heute|am Wochenende} {geöffnet|offen|auf}?",
            "Bis wann {haben Sie|hat der Laden} {heute|freitags} {offen|auf}?",
        ),
    ),
    "gift_cards": (
        (
            "Do you {sell|have|offer} {gift cards|gift vouchers|gift certificates}?",
            "How do I {use|redeem} {a gift card|my gift voucher}?",
            "How long {is a gift card|are gift vouchers} {valid|good}?",
            "Where do I {enter|type in} the {code|number} of my gift card?",
        ),
        (
            "{Gibt es|Verkaufen Sie|Haben Sie} {Geschenkgutscheine|Geschenkkarten}?",
            "Wie löse ich {einen Geschenkgutschein|meine Geschenkkarte} ein?",
            "Wie lange {gilt ein Geschenkgutschein|ist eine Geschenkkarte gültig}?",
            "Wo gebe ich den Code {des Geschenkgutscheins|meiner Geschenkkarte} ein?",
        ),
    ),
    "invoice": (
        (
            "{Where|How} can I {get|find|download} {an|my} invoice?",
            "I {need|require} {an invoice|a receipt} for {my taxes|my boss|the accountants}.",
            "{Could|Can} you put {our VAT number|a different address} on the invoice?",
            "The invoice {is wrong|has a mistake|never came}, what {now|should I do}?",
        ),
        (
            "{Wo|Wie} {finde|bekomme} ich {meine|eine} Rechnung?",
            "Ich brauche {eine Rechnung|einen Beleg} für {die Steuer|meine Chefin|die Abrechnung}.",
            "Können Sie {unsere USt-ID|eine andere Adresse} auf die Rechnung schreiben?",
            "Die Rechnung {ist falsch|stimmt nicht|ist nie angekommen}, was {nun|jetzt}?",
        ),
    ),
    "tracking": (
        (
            "Where is my {parcel|package|order|delivery}{| right now}?",
            "How {can|do} I track my {parcel|package|order|shipment}?",
            "My {parcel|order|package} {has not arrived|is late|still isn't here}. Where is it?",
            "I {did not get|never got} a tracking {number|code|link}.",
            "{Has|When was} my {order|parcel} {been sent yet|shipped}?",
        ),
        (
            "Wo {ist|bleibt} {mein Paket|meine Bestellung|meine Lieferung}?",
            "Wie kann ich {mein Paket|meine Sendung|meine Bestellung} verfolgen?",
            "{Mein Paket|Meine Bestellung} ist {noch nicht da|immer noch nicht angekommen}.",
            "Ich habe {keine Sendungsnummer|keinen Tracking-Link} bekommen.",
        ),
    ),
    "account": (
        (
            "I {forgot|lost|can't remember} my password{|, what can I do}{.|?}",
            "How do I {change|update} {my email address|my password|my login}?",
            "{I can't|I cannot} {log in|sign in|get into my account}{| any more}.",
            "How {can|do} I {delete|close} my {account|customer account}?",
            "Do I need {an account|to register} to {order|buy something}?",
        ),
        (
            "Ich habe mein Passwort {vergessen|verloren}.",
            "Wie {ändere|aktualisiere} ich {meine E-Mail-Adresse|mein Passwort}?",
            "Ich kann mich {nicht mehr|nicht} {anmelden|einloggen}.",
            "Wie {lösche|schließe} ich mein {Konto|Kundenkonto}?",
            "Brauche ich {ein Konto|ein Kundenkonto}, um zu bestellen?",
        ),
    ),
    "privacy": (
        (
            "What {data|personal data} do you {store|keep|collect} about {me|us|your customers}?",
            "How do you {protect|handle|use} my {data|personal data|information}?",
            "Do you {share|sell} {my data|my email address} {to|with} {others|anyone}?",
            "Please {tell me|explain} {how|whether} {cookies are used|you are GDPR compliant}.",
        ),
        (
            "Welche {Daten|persönlichen Daten} {speichern|sammeln} Sie über {mich|uns}?",
            "Wie {schützen|verwenden} Sie meine {Daten|persönlichen Daten}?",
            "Geben Sie {meine Daten|meine Adresse} {an andere|an Dritte} weiter?",
            "Wie steht es bei Ihnen um {den Datenschutz|die DSGVO|Cookies}?",
        ),
    ),
    "discounts": (
        (
            "{Do you have|Is there|Are there} {any discount|a discount code|student discounts}"
            "{| at the moment| right now}?",
            "{Do|Can} {regular customers|students|I} get {a discount|money off|a better price}?",
            "When {is|does} {your next sale|the next sale start}?",
            "My {discount|promo} code {does not work|is not accepted|was refused}.",
        ),
        (
            "{Gibt es|Haben Sie} {gerade|zurzeit|im Moment} {Rabatte|einen Rabattcode}?",
            "Bekommen {Stammkunden|Studenten|Schüler} {Rabatt|Nachlass|einen besseren Preis}?",
            "Wann ist {der nächste Ausverkauf|die nächste Rabattaktion}?",
            "Mein {Rabattcode|Aktionscode} {funktioniert nicht|wird nicht angenommen}.",
        ),
    ),
}
TOPICS = tuple(QUESTIONS)


def write_faq(scene: Scene) -> tuple[str, Answer]:
    """A question and its answer, which names the topic."""
    topic = scene.pick(TOPICS)
    return scene.say(*QUESTIONS[topic]), {"intent": "faq", "topic": topic}
