"""What the source says of the fields of a Struct: the text below each, for documents that are generated."""

import ast
import inspect
from itertools import pairwise
from typing import Any

import msgspec


def told(struct: type[Any]) -> dict[str, str]:
    """By field, what stands below it in the class or in a class above it, on one line; without a text, no entry."""
    found: dict[str, str] = {}
    for parent in reversed(struct.__mro__):
        if not issubclass(parent, msgspec.Struct) or parent is msgspec.Struct:
            continue
        made = ast.parse(inspect.getsource(parent)).body[0]
        body = made.body if isinstance(made, ast.ClassDef) else []
        for field, after in pairwise(body):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                found[field.target.id] = " ".join(text.split())
    return found
