# MuJoCo 3.3 ships its classes in compiled modules without stubs: for the type checker they are all Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
