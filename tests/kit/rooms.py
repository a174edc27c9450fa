"""Which worker runs which tests where there are several (`make test`): each takes rooms, not single tests.

Two do not keep two CPUs busy: tests that kill and stop real processes wait much. Of three or more the last fills the
pauses: it gives way to the others (`nice`), and has only what may take long; what is left of that the others end.
"""

import os

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from ramal.processes import ONLY, PORTS
from ramal.stack import PORTS as STACK

WHOLE = ("tests/chaos/", "tests/containers/", "tests/e2e/cluster/", "tests/e2e/", "tests/kube/")
"""Folders whose tests share one system, or the machine: one worker takes the whole folder. They begin first."""
LONG = ("tests/integration/cdr/test_cdr_killed.py", "tests/integration/cdr/test_analytics.py")
"""Files of few tests that take long: they do not begin last, as few tests do."""
PATIENT = (
    "tests/e2e/calls/test_e2e_abandoned.py",
    "tests/integration/ramal/test_release.py",
    "tests/containers/",
    "tests/integration/ramal/test_cli_errors.py",
    "tests/fuzz/",
    "tests/unit/",
)
"""What may take long without harm, in this order: a test that waits for a minute, compilers, commands, pure code."""
NICE = 10


def gives_way(worker: str, count: int) -> bool:
    """Whether this worker, `gw0` the first, is the one that gives way."""
    return count > 2 and worker == f"gw{count - 1}"


def room(test: str) -> str:
    """Where a test is by its node id: a folder of WHOLE, or a file."""
    file, *_ = test.split("::")
    return file if file in PATIENT else next((folder for folder in WHOLE if file.startswith(folder)), file)


def turn(name: str, *, yielding: bool) -> int:
    """When a room's turn is among all: the smallest first, those of one number as they come."""
    patient = next((place for place, begin in enumerate(PATIENT) if name.startswith(begin)), None)
    if yielding:
        return len(PATIENT) if patient is None else patient
    if patient is not None:
        return 3 + patient
    return 0 if name in WHOLE else 1 if name in LONG else 2


def move_in() -> None:
    """What a worker does at its start: it has ports of its own."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        share = len(PORTS) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        first = PORTS.start + int(worker.removeprefix("gw")) * share
        os.environ[ONLY] = f"{first}-{first + share - max(STACK.values())}"


def give_way() -> None:
    """What a worker does once it has found all tests, for which the others wait."""
    if gives_way(os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))):
        os.nice(NICE)


class ByRoom(LoadScopeScheduling):
    """What runs on one worker, one test after the other: a folder, or a file."""

    def _split_scope(self, nodeid: str) -> str:
        return room(nodeid)

    def _gives_way(self, node: WorkerController) -> bool:
        return gives_way(node.gateway.id, self.numnodes)

    def _assign_work_unit(self, node: WorkerController) -> None:
        yielding = self._gives_way(node)
        self.workqueue.move_to_end(min(self.workqueue, key=lambda name: turn(name, yielding=yielding)), last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if self._gives_way(node) and not any(name.startswith(PATIENT) for name in self.workqueue):
            if not node.shutting_down:
                node.shutdown()
            return
        super()._reschedule(node)
