"""sipcore.transaction: what holds of all four tables."""

import pytest

from sipcore.transaction import CLIENT, INVITE_CLIENT, INVITE_SERVER, TABLE, Action, State, Stimulus, Table

ALL = pytest.mark.parametrize(
    ("table", "first"),
    [
        pytest.param(INVITE_CLIENT, State.CALLING, id="figure-5"),
        pytest.param(CLIENT, State.TRYING, id="figure-6"),
        pytest.param(INVITE_SERVER, State.PROCEEDING, id="figure-7"),
        pytest.param(TABLE, State.TRYING, id="figure-8"),
    ],
)
ORDER = tuple(State)


@ALL
def test_every_state_is_reached_ends_and_never_goes_back(table: Table, first: State) -> None:
    reached = {first}
    for _ in State:
        reached |= {state for (before, _), (state, _) in table.items() if before in reached}
    assert reached == {state for state, _ in table} | {State.TERMINATED}
    ending = {State.TERMINATED}
    for _ in State:
        ending |= {before for (before, _), (state, _) in table.items() if state in ending}
    assert ending == reached
    for (before, _), (state, _) in table.items():
        assert ORDER.index(state) >= ORDER.index(before)


@ALL
def test_what_the_user_is_informed_of_is_a_transport_error_or_that_nobody_answered(table: Table, first: State) -> None:
    silence = {Stimulus.TRANSPORT_ERROR, Stimulus.TIMER_B, Stimulus.TIMER_F, Stimulus.CANCEL_UNHEARD}
    assert {stimulus for (_, stimulus), (_, action) in table.items() if action is Action.INFORM} <= silence
    assert all(state is not State.TERMINATED for state, _ in table)


def test_x08_no_transport_error_ends_an_invite_server_transaction() -> None:
    for state in (State.PROCEEDING, State.COMPLETED, State.ACCEPTED):
        assert INVITE_SERVER[state, Stimulus.TRANSPORT_ERROR] == (state, Action.INFORM)


def test_x09_a_client_acknowledges_refusals_and_never_a_2xx() -> None:
    for state in (State.CALLING, State.PROCEEDING):
        assert INVITE_CLIENT[state, Stimulus.SUCCESS] == (State.ACCEPTED, Action.TO_TU)
        assert INVITE_CLIENT[state, Stimulus.REFUSAL] == (State.COMPLETED, Action.TO_TU_AND_ACK)
    assert INVITE_CLIENT[State.COMPLETED, Stimulus.REFUSAL] == (State.COMPLETED, Action.ACK)
    assert (State.COMPLETED, Stimulus.SUCCESS) not in INVITE_CLIENT
