"""What a branch and the call say in the same moment is one event, and two again by `steps` (CHECKLIST C04)."""

import sys

from events.calls import BranchFinal, BranchStarted, CallFailed, event_id, steps
from tests.unit.edge.call_events.test_telling import BOB, answer, kinds, request, telling


def test_what_a_branch_says_and_the_call_says_with_it_is_told_once() -> None:
    """What does not go up, or goes up later, is told by itself."""
    events, told = telling()
    for branch in ("b1", "b2"):
        told.started(110, branch, BOB)
    ringing, away, busy = answer(180), answer(480, ("Server", "Soft/2")), answer(486, ("Server", "Soft/2"))
    told.heard(120, "b1", ringing)
    told.up(120, ringing)
    told.settled()
    for branch in ("b1", "b2"):
        again = answer(183)
        told.heard(125, branch, again)
        told.up(125, again)
        told.settled()
    told.heard(130, "b1", away)
    told.settled()
    told.heard(140, "b2", busy)
    told.up(140, busy)
    told.settled()
    assert kinds(events) == [
        "CallAttempted", "BranchStarted", "CallRinging", "BranchProvisional", "BranchProvisional", "BranchFinal",
        "CallFailed",
    ]  # fmt: skip
    found = {event_id(step): step for event in events for step in steps(event)}
    finals = [step for step in found.values() if isinstance(step, BranchFinal)]
    assert [(each.branch, each.code, each.agent, each.at) for each in finals] == [
        ("b1", 480, "Soft/2", 130),
        ("b2", 486, "Soft/2", 140),
    ]
    first, *others = [step.branch for step in found.values() if isinstance(step, BranchStarted)]
    assert (first, others) == ("b1", ["b2"])


def test_the_best_answer_that_came_earlier_is_told_when_it_came() -> None:
    events, told = telling()
    busy, away = answer(486), answer(480)
    for branch, at, response in (("b1", 120, busy), ("b2", 130, away)):
        told.started(110, branch, BOB)
        told.heard(at, branch, response)
    told.up(130, busy)
    told.settled()
    finals = [(event.branch, event.at) for event in events if isinstance(event, BranchFinal)]
    assert finals == [("b1", 120), ("b2", 130)]
    failed = events[-1]
    assert isinstance(failed, CallFailed)
    assert (failed.branch, failed.at) == ("b1", 130)
    implied, _ = steps(failed)
    assert event_id(implied) == event_id(next(event for event in events if isinstance(event, BranchFinal)))


def test_an_answer_that_is_sent_again_is_told_no_more() -> None:
    events, told = telling()
    told.started(110, "b1", BOB)
    for at in (140, 640):
        ok = answer(200)
        told.heard(at, "b1", ok)
        told.up(at, ok)
        told.settled()
    assert kinds(events) == ["CallAttempted", "CallAnswered"]


def test_the_answer_of_a_branch_that_was_given_up_or_sends_elsewhere_is_told_before_what_it_leads_to() -> None:
    for status, kind in ((487, "CallCancelled"), (302, "CallRedirected")):
        events, told = telling()
        told.started(110, "b1", BOB)
        told.cancelled(request("CANCEL"))
        final = answer(status)
        told.heard(140, "b1", final)
        told.up(140, final)
        told.settled()
        assert kinds(events) == ["CallAttempted", "BranchFinal", kind]


def test_a_message_that_was_told_of_is_not_kept() -> None:
    """What is told lives as long as the transaction, half a minute and more; messages are large."""
    _, told = telling()
    ringing, ok = answer(180), answer(200)
    said = (120, ringing), (130, ok)
    before = sys.getrefcount(ringing), sys.getrefcount(ok)
    told.started(110, "b1", BOB)
    for at, response in said:
        told.heard(at, "b1", response)
        told.up(at, response)
        told.settled()
    del response
    assert (sys.getrefcount(ringing), sys.getrefcount(ok)) == before
