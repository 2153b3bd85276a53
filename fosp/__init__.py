"""Robots that learn visual skills safely: offline safe policies from logs, safe fine-tuning where constraints are new.

Functions are loaded when they are used, so that ``import fosp`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_API = ("collect", "evaluate", "finetune", "pretrain", "report", "verify")
__all__ = [*_API, "UserError", "load_policy"]

if TYPE_CHECKING:
    from fosp.api import collect as collect
    from fosp.api import evaluate as evaluate
    from fosp.api import finetune as finetune
    from fosp.api import pretrain as pretrain
    from fosp.api import report as report
    from fosp.api import verify as verify
    from fosp.cli.wire import load_policy as load_policy
    from fosp.types import UserError as UserError


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module("fosp.api"), name)
    if name == "load_policy":
        return importlib.import_module("fosp.cli.wire").load_policy
    if name == "UserError":
        return importlib.import_module("fosp.types").UserError
    raise AttributeError(f"module 'fosp' has no attribute {name!r}")
