"""What a process runs has all that a process asks of it, whoever builds it."""

import importlib
import typing

import pytest

from ramal.system import SERVICES
from runtime.service import Service

ASKED = {name for name in vars(Service) if not name.startswith("_")} | set(Service.__annotations__)
MODULES = [f"{name}.service" for name in SERVICES if name != "analytics"] + ["cdr.figures", "cdr.analytics"]


@pytest.mark.parametrize("module", MODULES)
def test_every_service_has_what_a_process_asks_of_it(module: str) -> None:
    built = typing.get_type_hints(importlib.import_module(module).build)["return"]
    has = {name for each in built.__mro__ for name in (*vars(each), *getattr(each, "__annotations__", ()))}
    has |= set(built.__init__.__code__.co_names)  # what it gives itself

    assert has >= ASKED
