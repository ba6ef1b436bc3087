"""Chat templates of somebody who means harm: stopped, and said in one line."""

from __future__ import annotations

import pytest
from foreign import refused
from transformers import AutoTokenizer

from finetune.errors import UserError
from finetune.tasks.templates import rendered

# ---- S2: chat templates

LOOP = "{% for x in range(99999) %}"
NESTED = LOOP * 3 + "{% endfor %}" * 3
DOUBLED = "{% set n = namespace(t='aaaaaaaa') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}"
TEMPLATES = {
    "nested loops": NESTED,
    "twenty gigabytes": "{{ 'a' * 20000000000 }}",
    "doubled": DOUBLED,
    "long": "{{ 'a' * 20000000 }}",
    "huge range": "{% for a in range(1000000000) %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "escape by attr": "{{ (''|attr('__class__')).__mro__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{{ cycler.__init__.__globals__.os.mkdir('ran') }}",
    "wrong": "{{ messages[99].content.x.y }}",
    "unfinished": "{% for x in",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_stopped_and_said_in_one_line(home, tmp_path, monkeypatch, contract, name):
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(home / "gpt2")
    tokenizer.chat_template = TEMPLATES[name]

    said = refused(lambda: rendered(tokenizer, [{"role": "user", "content": "hello"}], True, "rows.jsonl:1"))

    assert said.startswith("rows.jsonl:1: the chat template")
    assert not (tmp_path / "ran").exists()
    contract("S2", refused=1, executed=0)


def test_a_template_leaves_clock_and_memory_as_they_were(home):
    import resource
    import signal

    tokenizer = AutoTokenizer.from_pretrained(home / "gpt2")
    before = (signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS))
    for template in ("{{ messages[0]['content'] }}", NESTED):
        tokenizer.chat_template = template
        try:
            assert rendered(tokenizer, [{"role": "user", "content": "hello"}], True, "row") == "hello"
        except UserError:
            assert template == NESTED
        assert (signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)) == before
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
