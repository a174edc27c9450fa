"""authsvc.users.accounts: whether a directory says that an account is disabled (R42)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.users.accounts import DISABLED_BY, Account, account_of

NOW = 1_795_000_000.0
"""In November 2026: day 20,775 since 1970."""
TODAY = 20_775


def filetime(seconds: float) -> str:
    return str(int((seconds + 11_644_473_600) * 10_000_000))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pwdAccountLockedTime", "000001010000Z"),
        ("nsAccountLock", "true"),
        ("nsAccountLock", "TRUE"),
        ("loginDisabled", "TRUE"),
        ("userAccountControl", "514"),
        ("userAccountControl", "66050"),
        ("shadowExpire", "1"),
        ("shadowExpire", str(TODAY)),
        ("accountExpires", filetime(NOW - 1)),
    ],
)
def test_r42_each_directory_disables_in_its_own_way(name: str, value: str) -> None:
    assert account_of({name.lower(): [value.encode()]}, DISABLED_BY, NOW) == Account(name)
    others = [each for each in DISABLED_BY if each != name]
    assert account_of({name.lower(): [value.encode()]}, others, NOW) == Account()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pwdAccountLockedTime", "20261128120000Z"),  # by wrong passwords, for a while: no reason to end calls
        ("nsAccountLock", "false"),
        ("loginDisabled", "FALSE"),
        ("userAccountControl", "512"),
        ("userAccountControl", "rubbish"),
        ("shadowExpire", "-1"),
        ("shadowExpire", "0"),
        ("shadowExpire", ""),
        ("shadowExpire", str(TODAY + 1)),
        ("accountExpires", "0"),
        ("accountExpires", "9223372036854775807"),
        ("accountExpires", filetime(NOW + 60)),
    ],
)
def test_r42_other_values_disable_nobody(name: str, value: str) -> None:
    assert account_of({name.lower(): [value.encode()]}, DISABLED_BY, NOW) == Account()


def test_when_password_and_entry_changed_is_told_as_the_directory_writes_it() -> None:
    attributes = {"pwdchangedtime": [b"20261128120000Z"], "modifytimestamp": [b"20261128120001Z"]}
    assert account_of(attributes, (), NOW) == Account("", "20261128120000Z", "20261128120001Z")


@given(st.dictionaries(st.sampled_from([name.lower() for name in DISABLED_BY]), st.lists(st.binary(max_size=40))))
def test_no_value_is_an_error(attributes: dict[str, list[bytes]]) -> None:
    account_of(attributes, DISABLED_BY, NOW)
