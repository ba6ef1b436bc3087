"""`--to onnx`: graphs, tokenizer, and run.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.exporting import onnx_graphs, runners
from finetune.exporting.onnx_running import STAND_INS
from finetune.exporting.original import Original, save_tokenizer


def write(original: Original, folder: Path, int8: bool = False) -> dict[str, Any]:
    """Write the graphs of a run with tokenizer and runner; return what stands in for its model, by name.

    Raises:
        UserError: the extra is not installed, or the model cannot be traced.
    """
    onnx_graphs.check_installed()
    made = onnx_graphs.graphs(original)
    files = {name: folder / f"{name}.onnx" for name in made}
    for name, graph in made.items():
        onnx_graphs.save(graph, files[name])
    found = {"onnx": STAND_INS[original.kind](original, files)}
    if int8:
        small = {name: folder / f"{name}.int8.onnx" for name in made}
        for name, graph in made.items():
            onnx_graphs.save(onnx_graphs.int8(graph), small[name])
        found["int8"] = STAND_INS[original.kind](original, small)
    if original.kind in ("text-classification", "causal-lm"):
        save_tokenizer(original.processor, folder)
    (folder / "run.py").write_text(runners.script(original, ".int8.onnx" if int8 else ".onnx"), encoding="utf-8")
    return found
