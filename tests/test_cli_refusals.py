from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli import main
from finetune.tasks import TASKS

GOOD = """\
task: {kind: text-classification, text: text, label: label}
data:
  train: reviews.csv
  validation: {fraction: 0.1}
model: {path: some/model}
adapter:
  peft_type: LORA
  r: 16
train:
  output_dir: runs/my
  learning_rate: 2e-5
"""

# (what is changed in the recipe, what is added to the command line, what the line says)
NAMES = [
    ("task: {kind", "taks: {kind", "", "my.yaml:1: taks is not a section of a recipe; sections: task, data"),
    (
        "text: text",
        "max_lenght: 3",
        "",
        "my.yaml:1: task.max_lenght is not an option of text-classification. Did you mean",
    ),
    (
        "",
        "",
        "--task.max_lenght 3",
        "--task.max_lenght is not an option of text-classification. Did you mean max_length?",
    ),
    ("text-classification", "text-clasification", "", 'my.yaml:1: task.kind is "text-clasification"; known: text-cla'),
    ("text-classification", "Causal_LM", "", "Did you mean causal-lm?"),
    ("kind: text-classification, ", "", "", f"my.yaml:1: task.kind is missing; known: {', '.join(TASKS)}."),
    ("LORA", "LOAR", "", 'my.yaml:7: adapter.peft_type is "LOAR"; known: head, LORA'),
    ("LORA", "lora", "", "Did you mean LORA?"),
    ("LORA", "IA3", "", "my.yaml:8: adapter.r is not an option of IA3."),
    ("  peft_type: LORA\n", "", "", "my.yaml:6: adapter.peft_type is missing; known: head, LORA"),
    ("r: 16", "rank: 16", "", "my.yaml:8: adapter.rank is not an option of LORA."),
    (
        "learning_rate",
        "learning-rate",
        "",
        "my.yaml:11: train.learning-rate is not an option of train. Did you mean learn",
    ),
    ("learning_rate: 2e-5", "evaluation_strategy: epoch", "", "Did you mean eval_strategy?"),
    (
        "learning_rate: 2e-5",
        "push_to_hub: true",
        "",
        "my.yaml:11: train.push_to_hub is refused: use the publish section",
    ),
    ("learning_rate: 2e-5", "auto_find_batch_size: true", "", "lower per_device_train_batch_size"),
    (
        "fraction",
        "fractoin",
        "",
        "my.yaml:4: data.validation.fractoin is not an option of data.validation. Did you m",
    ),
    ("fraction: 0.1", "stratify: true", "", "my.yaml:4: data.validation.fraction is missing"),
    ("train: reviews.csv", "train: [{pth: a.csv}]", "", "my.yaml:3: data.train.0.pth is not an option of data.train.0"),
    ("  train: reviews.csv\n", "", "", "my.yaml:2: data.train is missing"),
    ("  output_dir: runs/my\n", "", "", "my.yaml:9: train.output_dir is missing (the folder that the run leaves)."),
    ("train:\n  output_dir", "other:\n  output_dir", "", "my.yaml:9: other is not a section"),
]
TYPES = [
    ("2e-5", "fast", "", 'my.yaml:11: train.learning_rate is "fast"; it must be a number.'),
    ("2e-5", "true", "", "my.yaml:11: train.learning_rate is true; it must be a number."),
    ("r: 16", "r: 16.5", "", "my.yaml:8: adapter.r is 16.5; it must be a whole number."),
    ("text: text", "max_length: long", "", 'my.yaml:1: task.max_length is "long"; it must be a whole number.'),
    ("learning_rate: 2e-5", "bf16: yes", "", 'my.yaml:11: train.bf16 is "yes"; it must be true or false or null.'),
    ("label: label", "label: 3", "", "my.yaml:1: task.label is 3; it must be text."),
    ("train: reviews.csv", "train: 3", "", "my.yaml:3: data.train is 3; it must be text or a mapping of path"),
    ("train: reviews.csv", "train: [1, 2]", "", "my.yaml:3: data.train.0 is 1; it must be"),
    ("model: {path: some/model}", "model: some/model", "", 'my.yaml:5: model is "some/model"; it must be a mapping'),
    ("", "", "--train fast", '--train is "fast"; it must be a mapping'),
    ("", "", "--train.max_steps 2.5", "--train.max_steps is 2.5; it must be a whole number."),
    ("learning_rate: 2e-5", "optim: adam", "", 'my.yaml:11: train.optim is "adam"; known: adamw_torch,'),
    ("learning_rate: 2e-5", "lr_scheduler_type: cosin", "", "Did you mean cosine?"),
    ("", "", "--data.leakage ignore", '--data.leakage is "ignore"; known: error, warn, off.'),
    (
        "",
        "",
        "--model.dtype bf16",
        '--model.dtype is "bf16"; known: float32, bfloat16, float16. Did you mean bfloat16?',
    ),
    ("", "", "--train.seeds 3", "--train.seeds is 3; it must be a list of whole numbers or null. Write it so: [3]."),
    (
        "",
        "",
        "--train.seeds 1,2",
        '--train.seeds is "1,2"; it must be a list of whole numbers or null. Write it so: [1,2]',
    ),
    ("", "", "--train.seeds all", "a list of whole numbers or null."),
    ("", "", "--data.clean html", '--data.clean is "html"; it must be a list. Write it so: [html].'),
    ("", "", "--train.dp.max_grad_norm inf", "it must be a number. Infinity is written .inf."),
    ("", "", "--evaluate.resamples many", '--evaluate.resamples is "many"; it must be a whole number.'),
]
COMMANDS = [
    ("", "", "--train.seed", "--train.seed needs a value"),
    ("", "", "--train.seed --train.bf16 true", "--train.seed needs a value"),
    ("", "", "--learning_rate 1", "Did you mean --train.learning_rate?"),
    ("", "", "--overwrit", "Did you mean overwrite?"),
    ("", "", "--overwrite=yes", "--overwrite takes no value"),
    ("", "", "train.seed=3", "train.seed=3 is one argument too many for finetune train. Options begin with two dashes"),
    ("", "", "--profile dpp", "--profile dpp: known: cpu, ddp"),
    ("", "", "--profile nowhere.yaml", "--profile nowhere.yaml: there is no such file."),
    ("data:", "data: {}\ndata:", "", "my.yaml:3: data is given twice; the first is on line 2."),
    ("r: 16", "r: 16\n   s: 1", "", "my.yaml:9: not YAML"),
]
TOGETHER = [
    ("{kind: text-classification, text: text, label: label}", "{kind: causal-lm}",
     "--data.validation.stratify true --adapter null", "data.validation.stratify keeps the share of each label"),
    ("{kind: text-classification, text: text, label: label}", "{kind: causal-lm}",
     "--train.head_learning_rate 1e-3", "train.head_learning_rate is of a new head"),
    ("{kind: text-classification, text: text, label: label}", "{kind: causal-lm}",
     "--adapter {peft_type: head}", "adapter.peft_type head trains a new head"),
    ("", "", "--data.validation null --train.load_best_model_at_end true", "train.load_best_model_at_end"),
    ("", "", "--data.validation null --train.early_stopping_patience 2", "data.validation"),
    ("", "", "--data.streaming true --data.validation v.csv", "train.max_steps must say when to end"),
    ("", "", "--data.max_test_rows 5", "data.max_test_rows limits rows that are not there: data.test is missing."),
    ("", "", "--model null", "model.path is missing: task.kind text-classification needs weights"),
    ("", "", "--model.config.n_layer 2", "model.path names weights and model.config trains from scratch"),
    ("", "", "--model {config: {model_type: bert}}", "adapter.peft_type LORA adapts weights, and model.config"),
    ("", "", "--adapter.layers_to_transform [1]", "adapter.layers_to_transform needs adapter.target_modules as a list"),
    ("fraction: 0.1", "fraction: 1.5", "", "my.yaml:4: data.validation.fraction is 1.5"),
    ("", "", "--evaluate.resamples -1", "--evaluate.resamples is -1"),
    ("", "", "--data.encoding utf-9", "--data.encoding is utf-9"),
    ("", "", "--train.warmup_steps -1", "train"),
]  # fmt: skip


def words(added: str) -> list[str]:
    """Split a command line's end; a value in braces or brackets is one word."""
    option, space, value = added.partition(" ")
    return [option, value] if space and value[0] in "{[" else added.split()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("old", "new", "added", "line"), [*NAMES, *TYPES, *COMMANDS, *TOGETHER])
def test_a_broken_recipe_ends_with_one_line_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, added: str, line: str
):
    assert old in GOOD
    (folder / "my.yaml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")

    code = main(["train", "my.yaml", *words(added)])

    said = capsys.readouterr().err
    assert code == 2, said
    assert said.startswith("finetune: ")
    assert said.count("\n") == 1
    assert line in said
    assert [each.name for each in folder.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["trian", "my.yaml"], "trian is not a command; known: train, init, sweep, evaluate"),
        (["my.yaml"], "Did you mean: finetune train my.yaml?"),
        (["train"], "RECIPE is missing: finetune train RECIPE"),
        (["train", "other.yaml"], "there is no recipe other.yaml."),
        (["train", "."], ". is a folder; a recipe is one YAML file."),
        (["predict", "runs/my"], "FILE is missing: finetune predict RUN FILE"),
        (["predict", "runs/my", "new.csv"], "runs/my does not exist"),
        (["predict", "runs/my", "new.csv", "--outptu", "a.csv"], "Did you mean output?"),
        (["predict", ".", "new.csv"], ". is not a run"),
        (["evaluate", "runs/my", "--data.test", "other.csv"], "runs/my does not exist"),
        (["preview", "my.yaml", "--rows", "0"], "--rows is 0; give 1 or more."),
        (["preview", "my.yaml", "--rows", "-3"], "--rows is -3; give 1 or more."),
        (["preview", "my.yaml", "--rows", "few"], "--rows is few; it must be a whole number."),
        (["schema", "task"], "task is one argument too many for finetune schema."),
        (["env", "--all"], "--all is not an option of finetune env"),
        (["check", "my.yaml", "--personal", "my.yaml"], "--personal: my.yaml should end in .jsonl."),
        (["check", "my.yaml", "--personal", "none/x.jsonl"], "none/x.jsonl cannot be written: none is no folder."),
        (["selftest", "my.yaml", "--json", "my.yaml"], "--json: my.yaml should end in .json."),
    ],
)
def test_a_broken_command_ends_with_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], line: str
):
    code = main(argv)

    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert line in said


@pytest.mark.parametrize(
    "argv",
    [
        ["generate", "r", "--file", "a.jsonl", "--output", "./a.jsonl"],
        ["generate", "r", "--file", "*.jsonl", "--output", "a.jsonl"],
        ["predict", "r", "a.json?", "--output", "a.jsonl"],
        ["predict", "r", "../*/[ab].jsonl", "--output", "a.jsonl"],
        ["predict", "r", ".", "--output", "a.jsonl"],
        ["predict", "r", "r2", "**/*.jsonl", "--output", "a.jsonl"],
        ["init", "a.jsonl", "--output", "a.jsonl"],
    ],
)
def test_what_a_command_reads_is_not_written_over(folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str]):
    (folder / "a.jsonl").write_text("rows", encoding="utf-8")

    assert main(argv) == 2
    assert capsys.readouterr().err == (
        "finetune: --output: a.jsonl is read by this command; give another file, to be written.\n"
    )
    assert (folder / "a.jsonl").read_text(encoding="utf-8") == "rows"


PROBE = """
import sys
from finetune.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "datasets", "peft", "pyarrow", "numpy"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else code)
"""


def command(folder: Path, *arguments: str, launcher: tuple[str, ...] = ("-c", PROBE)) -> tuple[int, str, float]:
    """Run the command in a process of its own; return its code, what it said on stderr, its seconds of processor time.

    Processor time, not the clock's: a busy machine changes nothing about what the command does before it answers.
    """
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *launcher, *arguments],
        cwd=folder,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.returncode, done.stderr, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("old", "new", "added", "line"), [NAMES[0], NAMES[2], NAMES[6], TYPES[0], TYPES[13], COMMANDS[9]]
)
def test_a_wrong_name_type_or_choice_is_refused_without_torch_within_two_seconds(
    folder: Path, old: str, new: str, added: str, line: str
):
    (folder / "my.yaml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")

    code, said, seconds = command(folder, "train", "my.yaml", *words(added))

    assert code == 2, said
    assert line in said
    assert seconds < 2


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["schema"]])
def test_help_answers_within_a_second_without_torch(folder: Path, argv: list[str]):
    code, said, seconds = command(folder, *argv)

    assert code == 0, said
    assert seconds < 1


def test_the_module_is_the_command(folder: Path):
    (folder / "my.yaml").write_text(GOOD, encoding="utf-8")

    code, said, _ = command(folder, "train", "my.yaml", "--train.sede", "1", launcher=("-m", "finetune"))

    assert code == 2
    assert said == "finetune: --train.sede is not an option of train. Did you mean seed?\n"


def test_a_profile_gives_back_its_workers_exit_code_and_one_line(folder: Path):
    (folder / "my.yaml").write_text(GOOD.replace("reviews.csv", "nowhere.csv"), encoding="utf-8")

    code, said, _ = command(folder, "train", "my.yaml", "--profile", "cpu", launcher=("-m", "finetune"))

    assert code == 2
    assert [line for line in said.splitlines() if line.startswith("finetune")] == said.splitlines()[-1:]
    assert "nowhere.csv" in said
    assert "Traceback" not in said
