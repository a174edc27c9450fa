"""Since when temporary GRUUs of a phone are good: as long as it is registered, with one Call-ID (RFC 5627, R37)."""

import pytest

from events.commands import Contact
from tests.kit.aor import DESK, MOBILE, START, Aor, kinds

ONE, TWO = "<urn:uuid:1>", "<urn:uuid:2>"


def flow(number: int | None = None, uri: str = DESK, instance: str = ONE, **more) -> Contact:
    return Contact(f"{uri};n={number}", instance=instance, reg_id=number, **more)


def since(aor: Aor) -> list[int]:
    """Of each binding, in seconds after the start; -1: it has none."""
    return [(b.gruus_since - START) // 1000 if b.gruus_since else -1 for b in aor.state.bindings]


def test_r37_they_are_good_since_the_first_registration_through_all_refreshes():
    aor = Aor().given(flow(), gruu=True)
    assert since(aor) == [0]
    aor.later(100).given(flow(), gruu=True)
    aor.later(100).given(flow(uri=MOBILE), gruu=True)  # from another address
    assert since(aor) == [0]


@pytest.mark.parametrize("contact", [Contact(DESK), flow()])
def test_r37_who_does_not_ask_for_them_has_none(contact: Contact):
    assert since(Aor().given(contact)) == [-1]
    assert since(Aor().given(Contact(DESK), gruu=True)) == [-1]


def test_r37_they_end_with_the_last_binding_of_the_instance_and_not_before():
    aor = Aor().given(flow(1), gruu=True).given(flow(7, instance=TWO), gruu=True, call_id="other")
    aor.later(10).given(flow(2), gruu=True)
    aor.later(10).given(flow(1, expires=0), gruu=True)
    aor.later(10).given(flow(1), gruu=True)
    aor.later(10).given(flow(2, expires=0), gruu=True)
    assert since(aor) == [0, 0]  # of the other phone, and of the flow that came back in time
    aor.given(flow(1, expires=0), gruu=True)
    aor.later(10).given(flow(1), gruu=True)
    assert since(aor) == [0, 50]


def test_r37_another_call_id_in_a_refresh_ends_those_of_all_flows_of_the_phone():
    aor = Aor().given(flow(1), gruu=True).given(flow(2), gruu=True, call_id="second")
    aor.given(flow(7, instance=TWO), gruu=True, call_id="other")
    aor.later(10).given(flow(2), gruu=True, call_id="second")
    assert since(aor) == [0, 0, 0]
    decision = aor.later(10).register(flow(1), gruu=True, call_id="changed")
    assert since(aor) == [20, 20, 0]
    assert kinds(decision) == ["refreshed", "refreshed"]
    aor.later(10).given(flow(1, expires=0), gruu=True, call_id="changed")
    assert since(aor) == [20, 0]


def test_r37_a_refresh_that_does_not_ask_keeps_them_and_a_copy_changes_nothing():
    aor = Aor().given(flow(), gruu=True)
    aor.later(10).given(flow())
    assert since(aor) == [0]
    aor.later(1).register(flow(), cseq=aor.sent, branch=f"z9hG4bK{aor.sent}", gruu=True)
    assert since(aor) == [0]
    aor.later(10).given(flow(), call_id="changed")
    assert since(aor) == [21]
