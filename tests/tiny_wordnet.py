"""A tiny database in WordNet's own format (wndb(5WN)), made by hand."""

from __future__ import annotations

from pathlib import Path

HEAD = "  1 A tiny database in the format of WordNet, for tests.  \n"
FILES = ("lexnames", "cntlist.rev", "index.sense", "adj.exc", "adv.exc", "noun.exc", "verb.exc")
SYNSETS = {  # part of speech: its letter, and words that mean the same
    "noun": ("n", [("movie", "film", "moving_picture"), ("dog", "domestic_dog")]),
    "adj": ("a", [("good", "fine"), ("big", "large", "prominent")]),
    "verb": ("v", [("film", "shoot")]),
    "adv": ("r", [("well", "good")]),
}


def write_wordnet(folder: Path) -> Path:
    """Write the database and return its folder."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("00\tadj.all\t3\n" if name == "lexnames" else "")
    for part, (letter, synsets) in SYNSETS.items():
        data, places = HEAD, dict[str, list[int]]()
        for words in synsets:
            for word in words:
                places.setdefault(word, []).append(len(data))
            listed = " ".join(f"{word} 0" for word in words)
            frames = " 01 + 08 00" if letter == "v" else ""
            data += f"{len(data):08d} 00 {letter} {len(words):02x} {listed} 000{frames} | words that mean the same  \n"
        lines = [
            f"{word} {letter} {len(at)} 0 {len(at)} 0 {' '.join(f'{place:08d}' for place in at)}  \n"
            for word, at in sorted(places.items())
        ]
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(HEAD + "".join(lines))
    return folder
