"""The walk of docs/architecture.md: the files that hand an INVITE on are those that it names, and they are few."""

import re
import sys
from pathlib import Path
from types import FrameType

from edge.core.arrival import Arrival
from edge.core.proxy.context import Attempt, Context
from edge.core.proxy.waiting import Call
from sipcore.message import Request
from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB

ROOT = Path(__file__).parents[3]
CARRIES = (Arrival, Attempt, Call, Context, Request)


def named() -> list[str]:
    """The files that the sentence names, in order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sentence = next(line for line in text.splitlines() if "The INVITE itself passes" in line)
    return re.findall(r"`(edge/[a-z_/]+\.py)`", sentence)


def test_an_invite_to_a_phone_of_another_edge_passes_the_files_that_the_walk_names() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    edge, core = f"{ROOT}/edge/", f"{ROOT}/edge/core/"
    handed: dict[str, set[str]] = {}

    def called(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(edge):
            return
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if not any(isinstance(frame.f_locals.get(name), CARRIES) for name in arguments):
            return
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(edge):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != code.co_filename:
            handed.setdefault(caller.f_code.co_filename, set()).add(code.co_filename)

    sys.setprofile(called)
    try:
        alice.request("INVITE", BOB, authorized=True)
    finally:
        sys.setprofile(None)

    assert bob.got_request("INVITE").uri == bob.contact
    names = named()
    # Whom the others tell something, or ask: it gives the INVITE to nobody.
    leaves = {"answers", "identity", "response", "telling"}
    inner = {file.removeprefix(f"{ROOT}/") for file in handed if Path(file).stem not in leaves}
    assert inner == {name for name in names if (f"{ROOT}/{name}").startswith(core)}
    assert len(names) == len(set(names)) <= 20
    assert all((ROOT / name).is_file() for name in names)
