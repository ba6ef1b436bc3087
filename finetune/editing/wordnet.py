"""Synonyms of English words by WordNet (Miller 1995), read by nltk."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetune.errors import UserError

OPTION = "data.augment.thesaurus"
SHORTEST = 3  # letters of a word that has synonyms here: "a" is no ångström


class WordNet(Mapping[str, tuple[str, ...]]):
    """The words that share a set of synonyms with a word, in WordNet's order.

    A word counts as it stands: "was" has none, for "be" is another form. So do the stop words have none.
    """

    def __init__(self, name: str) -> None:
        """Open the database: `name` is "wordnet", nltk's own, or a folder.

        Raises:
            UserError: nltk is not installed, or the database is not there or not whole.
        """
        if find_spec("nltk") is None:
            raise UserError(f'{OPTION}: {name} is read by nltk: pip install "finetune[wordnet]".')
        self.reader = _of_folder(name) if Path(name).is_dir() else _of_nltk()
        self.version = str(self.reader.get_version())
        self.synonyms = cache(self._synonyms)

    def __getitem__(self, word: str) -> tuple[str, ...]:
        found = self.synonyms(word)
        if not found:
            raise KeyError(word)
        return found

    def __iter__(self) -> Iterator[str]:
        return (word for word in self.reader.all_lemma_names() if word in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _synonyms(self, word: str) -> tuple[str, ...]:
        from finetune.editing.texts import stop_words

        if len(word) < SHORTEST or word in stop_words():
            return ()
        sets = [[name.replace("_", " ") for name in each.lemma_names()] for each in self.reader.synsets(word)]
        same = [names for names in sets if word in (name.lower() for name in names)]
        return tuple(dict.fromkeys(name for names in same for name in names if name.lower() != word))


def _of_folder(name: str) -> Any:
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError

    class Database(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Other languages are mapped by nltk's own WordNet, which is not there."""

    missing = next((file for file in WordNetCorpusReader._FILES if not (Path(name) / file).is_file()), None)
    if missing is not None:
        raise UserError(f"{OPTION}: {name} is no folder of WordNet's database: {missing} is missing.")
    place = str(Path(name).resolve())
    if place not in nltk.data.path:
        nltk.data.path.append(place)  # nltk reads from folders that it was told of alone
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The multilingual functions", category=UserWarning)
            reader = Database(place, None)
        words = next(iter(reader.all_lemma_names()), None)
    except (ValueError, AssertionError, IndexError, StopIteration, UnicodeDecodeError, WordNetError) as error:
        raise UserError(f"{OPTION}: {name} is no whole database of WordNet: {error or type(error).__name__}.") from None
    if words is None:
        raise UserError(f"{OPTION}: {name} holds no words.")
    return reader


def _of_nltk() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        raise UserError(
            f"{OPTION}: nltk has no WordNet here: python -m nltk.downloader wordnet, or name the folder of a database."
        ) from None
    return wordnet
