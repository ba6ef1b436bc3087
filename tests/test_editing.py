"""Each step of cleaning on single texts: what it changes, and what it must not touch."""

from __future__ import annotations

import time

import pytest

from finetune.editing import plan, with_words
from finetune.errors import UserError


def edited(step, text: str) -> str:
    edit = plan([step])[0].edit
    assert edit is not None
    return edit(text)


def kept(step, text: str) -> bool:
    keep = plan([step])[0].keep
    assert keep is not None
    return keep(text)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("unicode", "cafe\u0301", "caf\u00e9"),
        ("unicode", "ﬁ Ａ ２", "ﬁ Ａ ２"),
        ({"unicode": "NFKC"}, "ﬁ Ａ ２", "fi A 2"),
        ("control", "a\x00b\u200bc\u202ed\ufeff", "abcd"),
        ("control", "it\x92s \x8020, \x9d", "it’s €20, "),
        ("control", "a\tb\r\nc\rd", "a\tb\nc\nd"),
        ("control", "👩\u200d💻 क\u094d\u200dष", "👩\u200d💻 क\u094d\u200dष"),  # joiners spell
        ("whitespace", "  a \u00a0\u3000 b\t\n\n\n\n c  \n", "a b\n\nc"),
        ("html", "<p>One<br>two</p><p>three &amp; <b>four</b></p>", "One\ntwo\nthree & four"),
        ("html", "a<script>if (x < 1) { alert('<b>') }</script>b<!-- c --><style>p {}</style>", "ab"),
        ("html", "&lt;b&gt; is a tag, &#65;&#x42;&nbsp;C", "<b> is a tag, AB\u00a0C"),
        ("html", "x <y and z> w, 1 < 2, <3, R&D, ?a=1&copy=2", "x <y and z> w, 1 < 2, <3, R&D, ?a=1&copy=2"),
        ("html", "<a href='?a=1&amp;b=2' title='>'>link</a> <Foo bar='&amp;'>", "link <Foo bar='&'>"),
        ("html", "<tr><td>Ann</td><td>30</td></tr><tr><th>a<th>b</tr>", "Ann 30\na b"),
        ("html", "<tr><td><b>a</b></td><td><b></b></td><td> c</td></tr><td>d", "a  c\nd"),
        ("html", "no tags & no entities", "no tags & no entities"),
        ("html", "open <b, <!-- and <script>more", "open <b, <!-- and more"),
        ("html", "a<style>b<script>c</script>d<script>e</SCRIPT >f<style>g", "abdfg"),
        ("html", "<!DOCTYPE html><html><body><h1>Title</h1>text</body></html>", "Title\ntext"),
        ("stop_words", "This is not the END, isn't it?", "END, isn't ?"),
        ({"stop_words": ["der", "Die"]}, "Der Hund, die Katze; modern", "Hund, Katze; modern"),
        ({"stop_words": ["der"]}, "zwei  Worte ", "zwei  Worte "),  # nothing was left out
    ],
)
def test_a_text_is_edited(step, before, after):
    assert edited(step, before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "write to <EMAIL>."),
        ("a@b, @home, me @ work", "a@b, @home, me @ work"),
        ("call +44 20 7946 0958 or (212) 555-0187", "call <PHONE> or <PHONE>"),
        ("Tel. 030/1234567, 0171 234 5678, 13912345678, 08712400602", "Tel. <PHONE>, <PHONE>, <PHONE>, <PHONE>"),
        ("2024-01-15, 01.02.2024, 1234567 of 3.141592653", "2024-01-15, 01.02.2024, 1234567 of 3.141592653"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004, 378282246310005", "card <CARD>, <CARD>, <CARD>"),
        ("order 4111 1111 1111 1112", "order 4111 1111 1111 1112"),  # its last digit does not check
        ("DE89 3704 0044 0532 0130 00 and GB82WEST12345698765432.", "<IBAN> and <IBAN>."),
        ("DE89 3704 0044 0532 0130 02", "DE89 3704 0044 0532 0130 02"),
        ("NO93 8601 1117 947 AND more", "<IBAN> AND more"),
        ("from 192.168.0.1 and 2001:db8::ff00:42:8329, not 999.1.1.1", "from <IP> and <IP>, not 999.1.1.1"),
        ("at 12:30:45, a::b, C++ std::vector", "at 12:30:45, a::b, C++ std::vector"),
        ("SSN 536-90-4399, not 000-12-3456 or 900-12-3456", "SSN <ID>, not 000-12-3456 or 900-12-3456"),
        ("11010519491231002X and not 110105194912310021", "<ID> and not 110105194912310021"),
        ("12345678Z, not 12345678A; AB123456C", "<ID>, not 12345678A; <ID>"),
        ("2 55 08 14 168 025 38", "<ID>"),  # INSEE's own example
        ("192.168.1.1:8080, ip:8.8.8.8:53, 12:30:10.0.0.1", "<IP>:8080, ip:<IP>:53, 12:30:<IP>"),
        ("2001:db8::1: up, [2001:db8::1]:80", "<IP>: up, [<IP>]:80"),
        ("06.12.34.56.78, not 01.02.03.04.05.06 or 01.02.03", "<PHONE>, not 01.02.03.04.05.06 or 01.02.03"),
        ("06\u00a012\u202f34\u00a056\u00a078, +49\u00a030\u2011123\u20114567", "<PHONE>, <PHONE>"),
        ("4111\u00a01111\u202f1111\u20111111 \u00a0 x", "<CARD> \u00a0 x"),
        ("DE89\u00a03704\u202f0044\u00a00532\u00a00130\u00a000\u00a0x", "<IBAN>\u00a0x"),
        ("536\u201190\u20114399, 2\u00a055\u00a008\u00a014\u00a0168\u00a0025\u00a038", "<ID>, <ID>"),
        ("a_b@c.org_ or a@b.com-x or a@b.de0171 or a@b.comx1", "<EMAIL>_ or <EMAIL>-x or <EMAIL>0171 or a@b.comx1"),
        ("x@w.rc1, pkg@1.2.3, x@self.conv1, a@b.com\u8c22", "x@w.rc1, pkg@1.2.3, x@self.conv1, <EMAIL>\u8c22"),
        ("jane@bücher.de, x@пример.рф, y@मेल.भारत; z@a.xn--p1ai", "<EMAIL>, <EMAIL>, <EMAIL>; <EMAIL>"),
        ("a" * 80 + "@example.com", "<EMAIL>"),
        ("我的电话是13812345678，号码11010519491231002X的", "我的电话是<PHONE>，号码<ID>的"),
        ("4111111111111111元, ip是192.168.1.1的, 电话090-1234-5678です", "<CARD>元, ip是<IP>的, 电话<PHONE>です"),
        ("邮箱zhang.san@example.com谢谢, a@foo.io谢谢", "邮箱<EMAIL>谢谢, <EMAIL>谢谢"),
        ("帐号DE89370400440532013000谢", "帐号<IBAN>谢"),
        ("de89370400440532013000, gb82 west 1234 5698 7654 32", "<IBAN>, <IBAN>"),
        ("SA0380000000608010167519; MU17BOMM0101101030300200000MUR; KZ86125KZT5004100100", "<IBAN>; <IBAN>; <IBAN>"),
        ("VA59001123000012345678; LC55HEMM000100010012001200023015; XK051212012345678906", "<IBAN>; <IBAN>; <IBAN>"),
    ],
)  # fmt: skip
def test_what_tells_of_a_person_is_replaced_and_what_only_looks_so_is_not(before, after):
    assert edited("scrub", before) == after
    assert edited("scrub", after) == after


def test_kinds_that_are_not_asked_for_stay():
    assert edited({"scrub": ["email"]}, "a@b.de, 192.168.0.1") == "<EMAIL>, 192.168.0.1"
    assert edited({"scrub": "ip"}, "a@b.de, 192.168.0.1") == "a@b.de, <IP>"


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "1" * 100_000, "a." * 50_000 + "@", "1 " * 50_000, "DE12" + "A " * 50_000, ":" * 100_000,
             "a@" + "b." * 50_000, "a.b@" * 25_000, "a@b.com" * 14_000, "_a@b." * 20_000, "a@xn--" * 16_000,
             "é" * 100_000, "कि" * 50_000, "a@" + "कि" * 50_000, "a@b." + "कि" * 50_000, "a@b." + "x" * 100_000,
             "请a" * 50_000, "请@" * 50_000,
             "06.12." * 16_000, "10.0.0." * 14_000, "de12 " * 20_000, "\u00a01" * 50_000, "1\u2011" * 50_000,
             "<" * 100_000, "&" * 100_000, "<b " * 30_000, "<b \"" * 20_000,
             "<!-- " * 20_000,
             "<script>" * 10_000, "<script>" * 60_000, "<style><script>" * 30_000, "<script></style>" * 30_000],
)  # fmt: skip
def test_no_text_takes_long(text):
    steps = plan(["unicode", "control", "html", "whitespace", "scrub"])
    started = time.perf_counter()
    for step in steps:
        step.edit(text)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("step", "yes", "no"),
    [
        ({"length": {"min_words": 2, "max_words": 3}}, ["a b", "a b c"], ["a", "a b c d"]),
        ({"length": {"min_characters": 2, "max_characters": 3}}, ["ab", "abc"], ["a", "abcd", ""]),
        ({"block": {"words": ["buy now", "Spam"]}}, ["spammer", "buy nowhere"], ["SPAM!", "please Buy Now"]),
        ({"block": {"patterns": [r"https?://", r"^\s*\d+\s*$"]}}, ["a 1"], ["see http://x.y", " 12 "]),
        ({"block": {"words": ["a"], "patterns": ["b"]}}, ["c"], ["a", "b"]),
    ],
)
def test_a_filter_says_which_texts_stay(step, yes, no):
    assert all(kept(step, text) for text in yes)
    assert not any(kept(step, text) for text in no)


def test_a_language_is_told():
    step = {"language": ["en"]}

    assert kept(step, "This is a sentence that is written in plain English, and no other language.")
    assert not kept(step, "Dieser Satz ist auf Deutsch geschrieben, und in keiner anderen Sprache.")
    with pytest.raises(UserError, match=r"data\.clean\.0\.language: klingon is not a language"):
        kept({"language": ["klingon"]}, "x")


def test_a_pattern_that_never_ends_is_stopped_and_named():
    with pytest.raises(UserError, match=r"patterns: .*takes more than 1 s for one text of 61 characters"):
        kept({"block": {"patterns": [r"(a|aa)+$"]}}, "a" * 60 + "!")


def test_words_of_a_file_are_read_once_and_become_part_of_the_recipe(tmp_path):
    (tmp_path / "words.txt").write_text("spam\n\n buy now \n", encoding="utf-8")
    given = [{"block": {"words": {"file": str(tmp_path / "words.txt")}}}, "html",
             {"stop_words": {"file": str(tmp_path / "words.txt")}}]  # fmt: skip

    assert with_words(given) == [{"block": {"words": ["spam", "buy now"]}}, "html", {"stop_words": ["spam", "buy now"]}]
    assert not kept(given[0], "Spam")


def test_a_byte_order_mark_is_no_letter_of_the_first_word(tmp_path):
    (tmp_path / "words.txt").write_text("spam\nbuy now\n", encoding="utf-8-sig")
    words = {"file": str(tmp_path / "words.txt")}

    assert not kept({"block": {"words": words}}, "spam")
    assert edited({"stop_words": words}, "spam and ham") == "and ham"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("htlm", r"data\.clean\.0: htlm is no step of cleaning\. Did you mean html"),
        ({"html": True}, "html takes no options"),
        ({"html": None, "control": None}, "is no step; give a name"),
        (5, "is no step"),
        ({"unicode": "NFD"}, "'NFD' is not a form here"),
        ({"scrub": ["mail"]}, "scrub: mail is not known. Did you mean email"),
        ({"scrub": []}, "is no list of kinds"),
        ("length", "needs one of min_characters"),
        ({"length": {"min_word": 2}}, "Did you mean min_words"),
        ({"length": {"min_words": "2"}}, "'2' is not a whole number"),
        ({"length": {"min_words": 3, "max_words": 2}}, "3 is more than max_words 2"),
        ("block", "needs words or patterns"),
        ({"block": {"pattern": ["a"]}}, "Did you mean patterns"),
        ({"block": {"patterns": "a"}}, "is no list of patterns"),
        ({"block": {"patterns": ["("]}}, "is no regular expression: missing"),
        ({"block": {"words": {"file": "nowhere.txt"}}}, r"nowhere\.txt cannot be read: No such file"),
        ({"stop_words": "german"}, "is no list of words"),
        ({"language": []}, "is no list of languages"),
    ],
)
def test_what_is_no_step_is_refused_in_one_line(step, said):
    with pytest.raises(UserError, match=said) as caught:
        plan([step])
    assert "\n" not in str(caught.value)
