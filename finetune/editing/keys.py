r"""What opens a door, by its form: tokens of services, and private keys. One pattern, of texts and of bytes alike.

A token may begin behind an escape of JSON ("\nhf_…"): the letter of the escape is no letter of a word. Before that is
asked, a token has its first letters, so that a search passes over all other bytes quickly.
"""

from __future__ import annotations

import re

TOKENS = (  # how one begins, always as long; what follows
    ("hf_", "[A-Za-z0-9]{30,}"),  # Hugging Face
    ("sk-", "[A-Za-z0-9_-]{24,}"),  # OpenAI and others
    ("gh[pousr]_", "[A-Za-z0-9]{30,}"),  # GitHub
    ("github_pat_", "[A-Za-z0-9_]{30,}"),
    ("glpat-", "[A-Za-z0-9_-]{20,}"),  # GitLab
    ("npm_", "[A-Za-z0-9]{36}"),
    ("A[KS]IA", "[0-9A-Z]{16}(?![A-Za-z0-9])"),  # AWS
    ("AIza", "[A-Za-z0-9_-]{35}"),  # Google
    ("xox[abcdeoprs]-", "[A-Za-z0-9-]{20,}"),  # Slack
    ("xapp-", "[A-Za-z0-9-]{20,}"),
)


def _token(start: str, rest: str) -> str:
    escaped = (r"\\[nrtbf]", r"\\u[0-9A-Fa-f]{4}")
    return rf"{start}(?:(?<![A-Za-z0-9]{start})|{'|'.join(f'(?<={each}{start})' for each in escaped)}){rest}"


NAME = "[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
LINE, PART = r"(?:[\r\n]|\\{1,4}[nr])", r"(?:\s|\\{1,4}[nrt])"  # an end of a line, white space; in JSON too
# Up to its end, whatever stands between that does not open or close another one.
WHOLE = rf"[^-]{{0,50000}}(?:-(?!----)[^-]{{0,2000}}){{0,100}}-----END {NAME}"
# Its end is cut off: some headers, then lines of base64, the last of which may be short.
CUT = (
    rf"(?:{LINE}{{1,4}}[A-Z][A-Za-z-]{{1,30}}: [^\r\n\\]{{0,400}}(?={LINE})){{0,6}}{PART}{{0,8}}[A-Za-z0-9+/=]{{16,}}"
    rf"(?:{PART}{{1,8}}[A-Za-z0-9+/=]{{16,}})*(?:{PART}{{1,8}}[A-Za-z0-9+/=]+(?=[\r\n\\\"']|\Z))?"
)
PRIVATE = rf"-----BEGIN {NAME}(?:{WHOLE}|{CUT})?"
KEY = re.compile("|".join([*(_token(*each) for each in TOKENS), PRIVATE]))
