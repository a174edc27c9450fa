"""What an operator types stands for itself in SQL, and a place in a list comes back as it went."""

import sqlite3

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.searching import all_of, anywhere, beginning, number, place, text, token
from runtime.database.keyset import following
from runtime.database.port import Statement

WORDS = st.text(st.sampled_from("aB%_!\\'@.é"), max_size=4)


def rows(condition: Statement, table: list[tuple[object, ...]], order: str = "1, 2, 3") -> list[tuple[object, ...]]:
    """What SQLite finds of a table (a, b, c)."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b, c)")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", table)
    sql = f"SELECT * FROM t WHERE {condition.sql.replace('%s', '?')} ORDER BY {order}"
    return connection.execute(sql, condition.values).fetchall()


@given(typed=WORDS, there=st.lists(st.tuples(WORDS, WORDS, st.integers(0, 9)), max_size=8))
def test_a_text_is_found_anywhere_whatever_its_case_and_stands_for_itself(
    typed: str, there: list[tuple[object, ...]]
) -> None:
    expected = [row for row in there if any(typed.lower() in str(cell).lower() for cell in row[:2])]
    assert rows(anywhere(typed, ["a", "b"]), there) == sorted(expected)


@given(typed=WORDS, there=st.lists(st.tuples(WORDS, WORDS, st.integers(0, 9)), max_size=8))
def test_a_user_is_found_by_his_beginning_and_with_a_domain_by_its(typed: str, there: list[tuple[object, ...]]) -> None:
    user, at, domain = typed.rpartition("@")
    if at:
        expected = [row for row in there if row[0] == user and str(row[1]).startswith(domain.lower())]
    else:
        expected = [row for row in there if str(row[0]).startswith(typed)]
    assert rows(beginning(typed, "a", "b"), there) == sorted(expected)


PLACES = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 3))


@given(there=st.sets(PLACES), last=PLACES, descending=st.booleans())
def test_a_page_begins_behind_the_last_row_of_the_one_before(
    there: set[tuple[object, ...]], last: tuple[object, ...], *, descending: bool
) -> None:
    condition = following(("a", "b", "c"), last, descending=descending)
    expected = sorted(row for row in there if (row < last if descending else row > last))
    assert rows(condition, list(there)) == expected


def test_conditions_are_joined_with_their_values_in_order() -> None:
    joined = all_of([Statement("a = %s", [1]), following(("b", "c"), (2, 3))])
    assert joined == Statement("a = %s AND (b >= %s AND (b > %s OR (b = %s AND (c > %s))))", [1, 2, 2, 2, 3])


def test_a_place_comes_back_as_it_went_with_ids_longer_than_a_browsers_numbers() -> None:
    decoder = msgspec.json.Decoder(tuple[str, int])
    assert place(token(("alice", 2**63)), decoder) == ("alice", 2**63)
    assert place("", decoder) is None


@pytest.mark.parametrize("given_", ["[", "[1,2]", '["a"]', '["a",1,2]', '{"a":1}', "\udcff", "[" * 100_000])
def test_a_place_that_is_none_is_refused(given_: str) -> None:
    with pytest.raises(ValueError, match="after"):
        place(given_, msgspec.json.Decoder(tuple[str, int]))


@pytest.mark.parametrize("given_", ["-1", "1e3", "", "10", "٣", "9" * 400])
def test_a_number_out_of_bounds_is_refused_by_its_name(given_: str) -> None:
    with pytest.raises(ValueError, match=r"^code$"):
        number("code", given_, 0, 9)


@pytest.mark.parametrize("given_", ["a\x00b", "a\nb", "x" * 257, "\udcff"])
def test_a_text_that_nobody_types_is_refused_by_its_name(given_: str) -> None:
    with pytest.raises(ValueError, match=r"^search$"):
        text("search", given_)
    assert text("search", "  alice ") == "alice"
