"""What tells of a person or opens a door, found by its form and check digits, and replaced by its kind (<EMAIL>).

Forms alone: names and addresses are not found, and a form may be met by something else. Every pattern has bounded
repeats, so that no text takes long.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from finetune.editing.keys import KEY
from finetune.errors import UserError, did_you_mean

MARKS = "\u0300-\u036f\u0900-\u0dff"  # parts of letters that stand for themselves, as those of India
# Thai to Khmer, kana, Han, Hangul: written without spaces, so a number or an address may touch them on either side.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
W = rf"[^\W{UNSPACED}]"  # any other letter or digit
WORD = re.compile(W)
DOMAINS = (  # the last part of a host, so well known that anything but a letter may follow at once
    "com|org|net|edu|gov|info|biz|eu|de|uk|fr|it|es|nl|be|ch|at|pl|ru|ua|cz|se|no|dk|fi|pt|gr|ro|hu|ie|us|ca|mx|br|ar|in|"
    "cn|jp|kr|tw|au|nz|za|tr|il"
)
# A run of letters is entered at its beginning alone, so its length needs no bound.
EMAIL = re.compile(
    rf"(?<!{W}|[.+{MARKS}-])(?:{W}|(?!\w)[.+{MARKS}-])+@(?:[\w{MARKS}-]{{1,63}}\.){{1,8}}(?:"
    rf"(?i:{DOMAINS})(?![A-Za-z\u00c0-\u024f])"
    rf"|(?:xn--[A-Za-z0-9-]{{2,59}}|(?:[^\W\d_{UNSPACED}]|(?!\w)[{MARKS}]){{2,24}})(?!{W}|-)"
    rf"|[{UNSPACED}]{{2,24}})"
)
PHONE = re.compile(
    rf"(?<!{W}|\.)(?:"
    r"(?:\+|(?<!\d )00)\d{1,3}[ ().\-/]{0,2}(?:\d[ ().\-/]{0,2}){6,12}\d"  # with the country
    r"|\(?\d{3}\)?[ .\-]\d{3}[ .\-]\d{4}"  # North America
    r"|(?<!\d )\(?0[1-9]\d{0,4}\)?[ /\-]{1,2}\d{2,8}(?:[ \-]\d{2,5}){0,4}"  # with a trunk 0
    r"|0[1-9](?:\.\d{2}){4}(?!\.\d)"  # the same, in pairs: France
    r"|0[1-9]\d{8,9}"  # the same, unparted
    r"|1[3-9]\d[ \-]?\d{4}[ \-]?\d{4}"  # mobile, China
    rf")(?!{W})"
)
CARD = re.compile(rf"(?<!{W}|\.)[2-6](?:[ -]?\d){{12,18}}(?!{W})")
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?= ?[A-Za-z0-9])")  # its beginning
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24,
    "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21,
    "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29,
    "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
IPV4 = re.compile(rf"(?<!{W}|\.)\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?!{W})")  # a port may follow
IPV6 = re.compile(rf"(?<!{W}|[.:])(?=[0-9A-Fa-f:]{{0,39}}:[0-9A-Fa-f:]{{0,39}}:)[0-9A-Fa-f:.]{{2,45}}(?!{W}|:)")
ID = re.compile(
    rf"(?<!{W}|-)(?:"
    r"(?P<ssn>(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4})"  # United States
    r"|(?P<nino>(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])"  # Britain
    r"|(?P<china>[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx])"
    r"|(?P<france>[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2})"
    r"|(?P<spain>\d{8}-?[A-Z])"
    rf")(?!{W}|-)"
)


def luhn(digits: str) -> bool:
    """Say whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def iban(text: str) -> bool:
    """Say whether two digits check an IBAN without spaces (ISO 13616: 97-10)."""
    moved = text[4:] + text[:4]
    return int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1


def _scrub_email(text: str) -> str:
    return EMAIL.sub("<EMAIL>", text)


# Spaces and hyphens at which no line breaks: one letter for one, so that places stay.
UNBROKEN = {0xA0: " ", 0x2007: " ", 0x2009: " ", 0x202F: " ", 0x2010: "-", 0x2011: "-"}


def _replaced(pattern: re.Pattern[str], mark: str, text: str, fits: Callable[[re.Match[str]], bool]) -> str:
    """Return a text with a mark for each match that fits, looked for as if its spaces and hyphens were plain ones."""
    parts, at = [], 0
    for found in pattern.finditer(_plain(text)):
        if fits(found):
            parts += [text[at : found.start()], mark]
            at = found.end()
    return "".join([*parts, text[at:]])


def _plain(text: str) -> str:
    return text if text.isascii() else text.translate(UNBROKEN)


def _scrub_phone(text: str) -> str:
    return _replaced(PHONE, "<PHONE>", text, lambda found: 7 <= _digits(found[0]) <= 15 and not DATE.match(found[0]))


DATE = re.compile(r"(?:\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4})$")


def _digits(text: str) -> int:
    return sum(letter.isdigit() for letter in text)


def _scrub_card(text: str) -> str:
    return _replaced(CARD, "<CARD>", text, lambda found: luhn(re.sub(r"\D", "", found[0])))


def _scrub_iban(text: str) -> str:
    plain, parts, at = _plain(text), [], 0
    for found in IBAN.finditer(plain):
        length = IBAN_LENGTHS.get(found[0][:2].upper())
        end = None if length is None or found.start() < at else _end_of_iban(plain, found.start(), length)
        if end is not None:
            parts += [text[at : found.start()], "<IBAN>"]
            at = end
    return "".join([*parts, text[at:]])


def _end_of_iban(text: str, start: int, length: int) -> int | None:
    """Return where the IBAN that begins at `start` ends, or None where there is none; single spaces may part it."""
    tight, at = "", start
    while len(tight) < length and at < len(text):
        if text[at] == " " and text[at - 1] != " ":
            at += 1
            continue
        if not (text[at].isascii() and text[at].isalnum()):
            return None
        tight += text[at].upper()
        at += 1
    ends = WORD.match(text, at) is None
    return at if len(tight) == length and ends and iban(tight) else None


def _scrub_ip(text: str) -> str:
    return _replaced(IPV4, "<IP>", IPV6.sub(_hidden_ip, text), lambda found: _is_ip(found[0]))


def _hidden_ip(found: re.Match[str]) -> str:
    for given in (found[0].rstrip("."), found[0].rstrip(".:")):  # a sentence may end, or go on, behind it
        # "a::b" is C++ sooner than a host
        if _is_ip(given) and len(given) > 5 and any(map(str.isdigit, given)):
            return "<IP>" + found[0][len(given) :]
    return found[0]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _scrub_id(text: str) -> str:
    def fits(found: re.Match[str]) -> bool:
        checks = {"china": _china, "france": _france, "spain": _spain}
        kind = found.lastgroup or ""
        return kind not in checks or checks[kind](found[0])

    return _replaced(ID, "<ID>", text, fits)


def _china(text: str) -> bool:
    """ISO 7064, MOD 11-2 (GB 11643-1999)."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17].upper()


def _france(text: str) -> bool:
    """The key of a NIR: 97 less the rest of the number; Corsica's 2A and 2B stand for 19 and 18."""
    tight = text.replace(" ", "")
    number = tight[:13].replace("2A", "19").replace("2B", "18")
    return 97 - int(number) % 97 == int(tight[13:])


def _spain(text: str) -> bool:
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(text[:8]) % 23] == text[-1]


def _scrub_key(text: str) -> str:
    return KEY.sub("<KEY>", text)


KINDS: dict[str, Callable[[str], str]] = {  # in the order in which they are looked for: an IBAN is no card
    "key": _scrub_key,
    "email": _scrub_email,
    "iban": _scrub_iban,
    "id": _scrub_id,
    "card": _scrub_card,
    "ip": _scrub_ip,
    "phone": _scrub_phone,
}


def counted(text: str) -> dict[str, int]:
    """Return how often each kind stands in a text; {} where none does. A place counts for the first kind that fits."""
    found = {}
    for kind, scrub in KINDS.items():
        mark = f"<{kind.upper()}>"
        after = scrub(text)
        if after != text:
            found[kind] = after.count(mark) - text.count(mark)
            text = after
    return found


def scrubber(told: Any, option: str) -> Callable[[str], str]:
    """Return the function that replaces what tells of a person by its kind.

    Args:
        told: kinds, of KINDS; None: all of them.
        option: its name in the recipe.
    """
    asked = list(KINDS) if told is None else [told] if isinstance(told, str) else told
    if not isinstance(asked, list) or not asked:
        raise UserError(f"{option}: {told!r} is no list of kinds; known: {', '.join(KINDS)}.")
    for kind in asked:
        if kind not in KINDS:
            raise UserError(
                f"{option}: {kind} is not known.{did_you_mean(str(kind), KINDS)} Known: {', '.join(KINDS)}."
            )
    chosen = [scrub for kind, scrub in KINDS.items() if kind in asked]

    def scrubbed(text: str) -> str:
        for scrub in chosen:
            text = scrub(text)
        return text

    return scrubbed
