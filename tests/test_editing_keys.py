"""Tokens and private keys in texts: replaced whole, in any form that a row gives them, in a time that is short."""

from __future__ import annotations

import json
import re
import time

import pytest

from finetune.editing.keys import KEY
from finetune.publishing.scrubbing import without_secrets

BEGIN, END = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
BODY = "\n".join("Ab+/" * 16 for _ in range(300))  # 19,499 characters
HEADERS = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,33A0\n\n"
PGP = "-----{} PGP PRIVATE KEY BLOCK-----"


@pytest.mark.parametrize(
    ("key", "left"),
    [
        (f"{BEGIN}\n{BODY}\n{END}", ""),
        (f"{BEGIN}\n{BODY}", ""),  # cut off
        (f"{BEGIN}\n{BODY}\nAb+/c", ""),
        (f"{BEGIN}\n{HEADERS}{BODY}", ""),
        (f"{BEGIN}\n{HEADERS}{BODY[:200]}\n{END}", ""),
        (f"{PGP.format('BEGIN')}\nVersion: x 2\n\n{BODY}\n=aB3d\n{PGP.format('END')}", ""),
        (f"{BEGIN} {BODY[:100]}", ""),
        (f'{BEGIN}"\n  "{BODY[:64]}"\n  "{END}', ""),  # as a program's source has it
        (BEGIN, " on its first line; and so on"),
        (f"{BEGIN}\n{BODY}", "\nand so on"),
    ],
)
def test_a_private_key_is_replaced_with_its_body(key, left):
    assert KEY.sub("<KEY>", f"it is {key}{left}") == f"it is <KEY>{left}"
    in_json = json.dumps({"text": key, "more": 1})
    assert without_secrets(in_json) == '{"text": "[a token]", "more": 1}'


@pytest.mark.parametrize(
    "text",
    [
        BEGIN * 3300, f"{BEGIN}\n" * 3300, f"{BEGIN}\\n" * 3000, f"{BEGIN}\nAb: x" * 2800,
        (BEGIN + " Ab: x" * 6) * 1500, (BEGIN + f"\nAa: {'x' * 60}" * 6) * 240, BEGIN + "\nAa: " * 20_000,
        BEGIN + "A" * 100_000, BEGIN + " " * 100_000, BEGIN + "\\n" * 50_000, BEGIN + "\nA" * 50_000,
        BEGIN + "- " * 50_000, BEGIN + "-" * 100_000, (BEGIN + "A" * 300) * 300, (BEGIN + "-a" * 300) * 160,
        "-----BEGIN " * 9000, "-----BEGIN " + "PRIVATE KEY" * 9000, "-" * 100_000, "\\n" * 50_000, "\\nhf_" * 20_000,
        "hf_" * 33_000, "x_hf_a" * 16_000, "sk-" * 33_000, "github_pat_" * 9000, "glpat-" * 16_000, "npm_" * 25_000,
        "AKIA" * 25_000, "AIza" * 25_000, "xapp-" * 20_000, "xoxb-a_" * 14_000,
    ],
)  # fmt: skip
def test_no_text_of_100_kb_takes_long(text):
    for pattern, given in ((KEY, text), (re.compile(KEY.pattern.encode()), text.encode())):
        started = time.process_time()
        for _ in pattern.finditer(given):
            pass
        assert time.process_time() - started < 1  # of a second; 0.03 is usual
