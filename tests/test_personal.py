"""Personal data and keys in rows: found by kind, file and line; recall and precision on a seeded corpus."""

from __future__ import annotations

import json
import random
import string
from collections import Counter

import pytest
import tiny

from finetune.cli import main
from finetune.editing.personal import personal_places
from finetune.editing.private import counted

WORDS = ["we", "wrote", "to", "the", "office", "about", "it", "and", "then", "they", "said", "that", "nothing", "was"]
EACH = 200  # sentences of every kind


def digits(chooser, count):
    return "".join(chooser.choices(string.digits, k=count))


def email(chooser):
    local = chooser.choice(["jane.doe", "j_smith", "info+news", "m.müller", "x", "anna-lena99", "O.Brien"])
    host = chooser.choice(["example.com", "mail.example.co.uk", "uni-ulm.de", "a1.io", "EXAMPLE.ORG"])
    return f"{local}@{host}"


def phone(chooser):
    d = lambda count: digits(chooser, count)  # noqa: E731
    return chooser.choice(
        [
            f"+1 {chooser.randint(201, 989)} 555 {d(4)}", f"({chooser.randint(201, 989)}) 555-{d(4)}",
            f"{chooser.randint(201, 989)}-555-{d(4)}", f"+44 20 7946 0{d(3)}", f"+49 30 {d(7)}", f"0049 171 {d(7)}",
            f"030/{d(7)}", f"0171 {d(7)}", f"139{d(8)}", f"+86 139 {d(4)} {d(4)}", f"+33 1 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"+1-{chooser.randint(201, 989)}-555-{d(4)}", f"{chooser.randint(201, 989)}.555.{d(4)}",
        ]
    )  # fmt: skip


def card(chooser):
    """Issuers' prefixes, and a last digit by the table of doubles, not by the function under test."""
    start, length = chooser.choice([("4", 16), ("51", 16), ("55", 16), ("37", 15), ("6011", 16), ("2221", 16)])
    number = start + digits(chooser, length - len(start) - 1)
    doubled = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    total = sum(doubled[int(c)] if place % 2 == 0 else int(c) for place, c in enumerate(reversed(number)))
    number += str(-total % 10)
    parts = [number[at : at + 4] for at in range(0, len(number), 4)]
    return chooser.choice([number, " ".join(parts), "-".join(parts)])


def iban(chooser):
    """Check digits by long division, digit for digit."""
    land, body = chooser.choice(
        [("DE", digits(chooser, 18)), ("AT", digits(chooser, 16)), ("ES", digits(chooser, 20)),
         ("GB", "WEST" + digits(chooser, 14)), ("NL", "ABNA" + digits(chooser, 10)), ("BE", digits(chooser, 12))]
    )  # fmt: skip
    rest = 0
    for letter in body + land + "00":
        for digit in str(string.digits.find(letter) if letter.isdigit() else ord(letter) - 55):
            rest = (rest * 10 + int(digit)) % 97
    whole = f"{land}{98 - rest:02d}{body}"
    return chooser.choice([whole, " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))])


def ip(chooser):
    four = ".".join(str(chooser.randint(1, 254)) for _ in range(4))
    six = ":".join(f"{chooser.randint(1, 65535):x}" for _ in range(8))
    return chooser.choice([four, four, six, f"2001:db8::{chooser.randint(16, 65535):x}"])


def key(chooser):
    letters = "".join(chooser.choices(string.ascii_letters + string.digits, k=36))
    start = chooser.choice(["hf_", "sk-", "ghp_", "gho_", "AKIA", "xoxb-", "pem"])
    if start == "AKIA":
        return start + "".join(chooser.choices(string.ascii_uppercase + string.digits, k=16))
    return (
        f"-----BEGIN RSA PRIVATE KEY-----\n{letters}\n-----END RSA PRIVATE KEY-----"
        if start == "pem"
        else start + letters
    )


def number(chooser):
    """Personal numbers with check characters: Spain's DNI (its letter from the table) and the American form."""
    whole = int(digits(chooser, 8))
    spain = f"{whole:08d}{'TRWAGMYFPDXBNJZSQVHLCKE'[whole % 23]}"
    return chooser.choice(
        [spain, f"{chooser.randint(101, 665)}-{chooser.randint(10, 99)}-{chooser.randint(1000, 9999)}"]
    )


def harmless(chooser):
    """What has digits, dots, at signs and colons, and tells of nobody."""
    d = lambda count: digits(chooser, count)  # noqa: E731
    return chooser.choice(
        [
            f"20{d(2)}-0{chooser.randint(1, 9)}-1{chooser.randint(0, 9)}", f"{chooser.randint(1, 9)},{d(3)},{d(3)}",
            f"order no. {chooser.randint(1, 9)}{d(5)}", f"version {d(1)}.{d(2)}.{d(1)}",
            f"at {chooser.randint(10, 23)}:30", f"pages {chooser.randint(10, 99)}-{chooser.randint(100, 400)}",
            f"${chooser.randint(1, 900)}.{d(2)}",
            f"@{chooser.choice(WORDS)}", "std::vector", f"ISBN 978-3-16-{d(6)}-0", f"3.14159{d(4)}", "sk-learn",
            f"{d(2)} % of {d(4)}", f"room {d(3)}", f"the {chooser.randint(1900, 1999)}s", f"#{d(6)}", f"{d(3)}-{d(3)}",
            f"ratio {d(1)}:{d(2)}:{d(2)}", f"sha {chooser.randbytes(4).hex()}", f"AB {d(4)}", f"zip {d(5)}-{d(4)}",
            # what has a form by chance: a tracking number, a time in seconds, a book's number, a build
            f"parcel {chooser.randint(2, 6)}{d(15)}", f"at 17{d(8)}", f"978{d(10)}",
            f"build {d(1)}.{d(1)}.{d(2)}.{d(3)}",
        ]
    )  # fmt: skip


KINDS = {"email": email, "phone": phone, "card": card, "iban": iban, "ip": ip, "key": key, "id": number}


def sentence(chooser, thing):
    words = chooser.choices(WORDS, k=chooser.randint(4, 12))
    words.insert(chooser.randint(0, len(words)), thing + chooser.choice(["", "", ",", ".", ";", "!"]))
    return " ".join(words)


def test_each_kind_is_found_in_a_seeded_corpus_and_little_else_is(contract):
    chooser, right, missed, wrong = random.Random(13), Counter(), Counter(), Counter()
    for kind, make in [*KINDS.items(), ("", harmless)]:
        for _ in range(EACH if kind else 4 * EACH):
            found = counted(sentence(chooser, make(chooser)))
            right[kind] += found.pop(kind, 0) > 0
            missed[kind] = (EACH if kind else 0) - right[kind]
            wrong.update(found)

    recall = {kind: right[kind] / EACH for kind in KINDS}
    precision = {kind: right[kind] / (right[kind] + wrong[kind]) for kind in KINDS}
    print(recall, precision)
    assert min(recall.values()) >= 0.95, recall
    assert min(precision.values()) >= 0.85, precision
    contract("P2", texts=len(KINDS) * EACH + 4 * EACH, kinds=len(KINDS), least_recall=min(recall.values()),
             least_precision=min(precision.values()))  # fmt: skip


def test_a_place_is_told_by_kind_file_and_line_and_never_by_what_stands_there():
    rows = {"text": ["nothing", "a@b.de and c@d.org from 10.0.0.1", None]}

    places = personal_places("train", ["x.csv:2", "x.csv:3", "x.csv:4"], rows)

    assert [(each.row_id, each.column, each.kind, each.count) for each in places] == [
        ("x.csv:3", "text", "email", 2), ("x.csv:3", "text", "ip", 1),
    ]  # fmt: skip
    assert counted("an <EMAIL> that was scrubbed before") == {}


@pytest.fixture
def recipe(home, tmp_path, sections, write_recipe):
    def make(**data):
        rows = tiny.sentences(30, 5)
        rows[6]["text"] += " mail jane@example.org"
        rows[9]["text"] += " call +44 20 7946 0958"
        tiny.write_rows(tmp_path / "own.jsonl", rows)
        return write_recipe(
            sections("text-classification", data={"train": str(tmp_path / "own.jsonl"), **data}), "own.yaml"
        )

    return make


def test_check_names_the_lines_before_training_and_writes_every_place(recipe, tmp_path, capsys):
    assert main(["check", str(recipe()), "--personal", str(tmp_path / "places.jsonl")]) == 0

    said = capsys.readouterr().out
    assert "personal data or keys in 2 of 30 rows (email 1, phone 1): " in said
    assert "own.jsonl:7 (email)" in said
    assert "own.jsonl:10 (phone)" in said
    assert "{scrub: [email, phone]}" in said
    assert "test: no personal data" in said
    assert "jane@example.org" not in said
    written = [json.loads(line) for line in (tmp_path / "places.jsonl").read_text().splitlines()]
    assert [(each["split"], each["kind"], each["count"]) for each in written] == [
        ("train", "email", 1),
        ("train", "phone", 1),
    ]
    assert "jane@" not in (tmp_path / "places.jsonl").read_text()


def test_conversations_are_looked_at_as_they_were_written(home, tmp_path, sections, write_recipe, capsys):
    said = "Call:\n0170 1234567\n536-90-4399\n10.0.0.1\nhf_" + "a" * 34
    rows = [{"instruction": f"How is it {n}?", "output": "fine"} for n in range(20)]
    rows[4]["output"] = said
    tiny.write_rows(tmp_path / "own.jsonl", rows)
    recipe = write_recipe(sections("chat", data={"train": str(tmp_path / "own.jsonl")}), "own.yaml")

    assert main(["check", str(recipe), "--personal", str(tmp_path / "places.jsonl")]) == 0

    out = capsys.readouterr().out
    assert "train: personal data or keys in 1 of 20 rows" in out
    assert "Clean the files." in out
    assert "data.clean" not in out  # it is refused for conversations
    written = [json.loads(line) for line in (tmp_path / "places.jsonl").read_text().splitlines()]
    found = {each["kind"]: each["count"] for each in written if each["split"] == "train"}
    assert found == {"key": 1, "id": 1, "ip": 1, "phone": 1}
    assert {each["row_id"] for each in written if each["split"] == "train"} == {f"{tmp_path / 'own.jsonl'}:5"}


def test_preview_shows_what_scrubbing_changed_and_check_finds_nothing_more(recipe, capsys):
    path = recipe(clean=[{"scrub": ["email", "phone"]}])

    assert main(["preview", str(path), "--rows", "1"]) == 0
    said = capsys.readouterr().out
    before, after = (next(line for line in said.splitlines() if line.startswith(f"{sign} ")) for sign in "-+")
    assert before.endswith("mail jane@example.org")
    assert after.endswith("mail <EMAIL>")
    assert "<PHONE>" not in said.partition("+ ")[2].partition("\n\n")[0]  # one row was asked for

    assert main(["check", str(path)]) == 0
    assert "train: no personal data or keys of a known form in 30 rows." in capsys.readouterr().out
    assert main(["check", str(path), "--personal", "/nowhere/at/all.jsonl"]) == 2
    assert "--personal: /nowhere/at/all.jsonl cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "named",
    [
        ["--data.train", "own.jsonl"],
        ["--data.train", "[{path: own.jsonl}]"],
        ["--data.validation", "o*.jsonl"],
        ["--data.test", "."],
        ["--evaluate.outliers", "[own.jsonl]"],
    ],
    ids=str,
)
def test_the_list_of_places_never_replaces_rows_and_is_refused_before_they_are_read(
    recipe, tmp_path, capsys, monkeypatch, named
):
    tiny.write_rows(tmp_path / "rows.jsonl", tiny.sentences(30, 6))
    made = recipe(train=str(tmp_path / "rows.jsonl"))
    before = (tmp_path / "own.jsonl").read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("finetune.preparation.prepare", None)

    assert main(["check", str(made), *named, "--personal", "./own.jsonl"]) == 2
    assert (
        "--personal: own.jsonl holds rows of the recipe; give another file, to be written." in capsys.readouterr().err
    )
    assert (tmp_path / "own.jsonl").read_bytes() == before
