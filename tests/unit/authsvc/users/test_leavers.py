"""authsvc.users.leavers: whose registrations end because he is gone (R42)."""

from hypothesis import given
from hypothesis import strategies as st

from authsvc.users.leavers import FEW, Look, judge

NOBODY: frozenset[tuple[str, str]] = frozenset()


def people(*numbers: int) -> frozenset[tuple[str, str]]:
    return frozenset((f"u{number}", "example.test") for number in numbers)


def test_r42_nobody_leaves_before_two_looks_in_a_row_have_missed_him():
    first = judge(Look(100, people(1, 2)), NOBODY, 10)
    assert (first.leavers, first.suspects) == (NOBODY, people(1, 2))
    second = judge(Look(100, people(2, 3)), first.suspects, 10)
    assert (second.leavers, second.suspects, second.refused) == (people(2), people(3), False)


def test_r42_many_at_once_are_believed_gone_of_nobody_and_the_next_look_begins_anew():
    many = people(*range(11))
    refused = judge(Look(100, many), many, 10)
    assert (refused.leavers, refused.suspects, refused.refused) == (NOBODY, NOBODY, True)
    assert judge(Look(100, people(*range(10))), refused.suspects, 10).leavers == NOBODY


def test_r42_everybody_but_a_few_is_too_many_however_few_are_registered():
    assert judge(Look(3, people(1, 2, 3)), people(1, 2, 3), 10).refused
    assert judge(Look(1, people(1)), people(1), 10).leavers == people(1)


@given(
    st.frozensets(st.integers(0, 50)),
    st.frozensets(st.integers(0, 50)),
    st.integers(0, 50),
    st.integers(0, 99),
)
def test_r42_who_is_there_is_never_among_them_nor_more_than_the_limit(gone, suspected, others, percent):
    registered = len(gone) + others
    judgement = judge(Look(registered, people(*gone)), people(*suspected), percent)
    assert judgement.leavers <= people(*gone) & people(*suspected)
    assert len(judgement.leavers) <= max(FEW, registered * percent // 100)
    assert not judgement.leavers & judgement.suspects
