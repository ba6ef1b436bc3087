"""Runs in the formats of other programs: ONNX, torch.export, plain folders; each checked against the run."""

from finetune.exporting.exported import FORMATS, export

__all__ = ["FORMATS", "export"]
