"""From-scratch families, known to `AutoConfig` and `AutoModel` once this package is imported.

A new family is one file that imports torch and transformers alone, and its lines in `register`.
"""

from __future__ import annotations


def register() -> None:
    """Make every family known to transformers' Auto classes."""


register()
