"""Robots that learn visual skills safely: offline safe policies from logs, safe fine-tuning where constraints are new.

Functions are loaded when they are used, so that ``import fosp`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["UserError", "collect", "evaluate", "finetune", "load_policy", "pretrain", "verify", "write_report"]

#: Where each of them is defined.
_HOMES = {"UserError": "fosp.types", "load_policy": "fosp.cli.wire"}

if TYPE_CHECKING:
    from fosp.api import collect as collect
    from fosp.api import evaluate as evaluate
    from fosp.api import finetune as finetune
    from fosp.api import pretrain as pretrain
    from fosp.api import verify as verify
    from fosp.api import write_report as write_report
    from fosp.cli.wire import load_policy as load_policy
    from fosp.types import UserError as UserError


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "fosp.api")), name)
    raise AttributeError(f"module 'fosp' has no attribute {name!r}")
