"""Workers take rooms, and of three the last gives way: it begins with what may take long without harm."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.kit.rooms import LONG, PATIENT, WHOLE, ByRoom, gives_way, room, turn

TESTS = [
    *(f"tests/unit/test_pure{file}.py::test_{number}" for file in range(3) for number in range(40)),
    *(f"tests/integration/test_server{file}.py::test_{number}" for file in range(9) for number in range(5)),
    *(f"{folder}test_file{file}.py::test_{number}" for folder in WHOLE for file in range(2) for number in range(3)),
    *(f"{file}::test_long" for file in (*LONG, *PATIENT) if file.endswith(".py")),
]


class Worker:
    """A worker as the scheduler sees it: it runs what it is sent, one test at a time."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.waiting: list[int] = []
        self.done: list[str] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.waiting += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def run(count: int, pace: int = 1) -> list[Worker]:
    """All tests on so many workers; the last is slower by this factor."""
    option = SimpleNamespace(loadscopereorder=True)
    config: Any = SimpleNamespace(getvalue=lambda _: ["popen"] * count, option=option)
    scheduler = ByRoom(config)
    workers: list[Any] = [Worker(number) for number in range(count)]
    for worker in workers:
        scheduler.add_node(worker)
    for worker in workers:
        scheduler.add_node_collection(worker, TESTS)
    scheduler.schedule()
    for step in range(10 * len(TESTS)):
        for worker in workers[: count if step % pace == 0 else count - 1]:
            # A worker begins a test when it knows the next, or that there is none.
            if len(worker.waiting) > 1 or (worker.waiting and worker.shutting_down):
                index = worker.waiting.pop(0)
                worker.done.append(TESTS[index])
                scheduler.mark_test_complete(worker, index)
    assert all(worker.shutting_down for worker in workers)
    return workers


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_test_runs_once_and_a_room_is_one_workers(count: int) -> None:
    workers = run(count)
    assert sorted(test for worker in workers for test in worker.done) == sorted(TESTS)
    for worker in workers:
        rooms = [room(test) for test in worker.done]
        assert len(set(rooms)) == len([1 for n, name in enumerate(rooms) if n == 0 or rooms[n - 1] != name])
    whose = [(room(test), worker.gateway.id) for worker in workers for test in worker.done]
    assert len(dict(whose)) == len(set(whose))


def test_the_last_of_three_begins_with_what_may_take_long_and_the_others_with_whole_folders() -> None:
    first, second, last = run(3)
    assert last.done[0].startswith(PATIENT[0])
    assert all(test.startswith(PATIENT) for test in last.done)
    for worker in (first, second):
        assert room(worker.done[0]) in WHOLE
    for worker in (first, second, last):
        turns = [turn(room(test), yielding=worker is last) for test in worker.done]
        assert turns == sorted(turns)


def test_what_the_last_has_not_come_to_the_others_take_in_the_end() -> None:
    *others, last = run(3, pace=40)
    assert last.done
    assert all(test.startswith(PATIENT) for test in last.done)
    assert any(test.startswith(PATIENT) for worker in others for test in worker.done)
    for worker in others:
        patient = [test.startswith(PATIENT) for test in worker.done]
        assert patient == sorted(patient)


def test_one_of_two_gives_way_to_nobody() -> None:
    assert not any(gives_way(f"gw{number}", count) for count in (0, 1, 2) for number in range(count))
    assert [gives_way(f"gw{number}", 3) for number in range(3)] == [False, False, True]
