"""The text from which the vocabulary is learned, and the words that carry their space."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from penstock_models import lexicon
from penstock_models.samples import Diet, contents_of, draw_conversation
from penstock_models.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from penstock_models.dialogues import Dialogue

VOCABULARY = 2048
CONVERSATIONS = 30_000
SEEN_AT_LEAST = 50
RARELY = 0.2
WORD = re.compile(r"[^\W\d_]+")


def learn_vocabulary(seed: int) -> Tokenizer:
    """The tokenizer of both models; the same seed gives the same one."""
    random, diet = Random(seed), Diet(tool_share=0.12)
    drawn = [draw_conversation(random, diet, 1.0) for _ in range(CONVERSATIONS)]
    corpus = [text for dialogue in drawn for text in contents_of(dialogue)]
    return train_tokenizer(corpus, frequent_words(drawn), VOCABULARY)


def frequent_words(dialogues: list[Dialogue]) -> list[str]:
    """Words of the customers that are common and never copied into an answer."""
    invented = Counter(word.lower() for dialogue in dialogues for word in dialogue.message.invented)
    copied = _words_of_the_lexicon()
    counted: Counter[str] = Counter()
    for dialogue in dialogues:
        for turn in dialogue.turns:
            if turn.role == "user":
                counted.update(WORD.findall(turn.text))
    return sorted(
        word
        for word, count in counted.items()
        if count >= SEEN_AT_LEAST
        and word.lower() not in copied
        # By accident an invented word may be one that exists.
        and invented[word.lower()] < RARELY * count
    )


def _words_of_the_lexicon() -> set[str]:
    nouns = [form for noun in (*lexicon.ENGLISH_NOUNS, *lexicon.GERMAN_NOUNS) for form in noun[:2]]
    names = (*lexicon.REAL_PLACES, *lexicon.REAL_FIRST_NAMES, *lexicon.REAL_LAST_NAMES)
    firms = (*lexicon.REAL_COMPANIES, *lexicon.COMPANY_ENDINGS, *lexicon.SIZES)
    colours = lexicon.COLOUR_NAMES
    return {
        word.lower() for text in (*nouns, *names, *firms, *colours) for word in WORD.findall(text)
    }
