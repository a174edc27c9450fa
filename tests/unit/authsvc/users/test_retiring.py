"""Whether a changed password ends an enrolment, by what the directory said then and says now (A24)."""

import pytest

from authsvc.users.accounts import Account
from authsvc.users.retiring import ENTRY_CHANGED, PASSWORD_CHANGED, over_for

THEN, LATER, FRACTION = "20261128140250Z", "20261128140251Z", "20261128140250.5Z"


@pytest.mark.parametrize(
    ("password_changed", "modified", "account", "why"),
    [
        (THEN, THEN, Account("", THEN, LATER), ""),  # something else of the entry changed
        (THEN, THEN, Account("", LATER, LATER), PASSWORD_CHANGED),
        (THEN, THEN, Account("", FRACTION, THEN), PASSWORD_CHANGED),
        (FRACTION, THEN, Account("", "20261128140250.500000Z", THEN), ""),
        (LATER, LATER, Account("", THEN, THEN), ""),  # a replica that is behind
        ("", THEN, Account("", LATER, LATER), PASSWORD_CHANGED),  # the first change since the overlay is there
        (THEN, THEN, Account("", "", LATER), ""),  # the overlay was turned off: not everybody's password changed
        ("", THEN, Account("", "", THEN), ""),
        ("", THEN, Account("", "", LATER), ENTRY_CHANGED),
        ("", "", Account("", "", LATER), ""),
        ("", "", Account(), ""),
        ("133400000000000000", THEN, Account("", "133400000000000001", THEN), PASSWORD_CHANGED),  # Active Directory
        ("133400000000000000", THEN, Account("", "133400000000000000", LATER), ""),
        ("133400000000000000", THEN, Account("", "0", LATER), ""),  # must change it: the next one is newer
    ],
)
def test_a24_an_enrolment_is_over_when_the_password_is_newer(
    password_changed: str, modified: str, account: Account, why: str
) -> None:
    assert over_for(password_changed, modified, account) == why
