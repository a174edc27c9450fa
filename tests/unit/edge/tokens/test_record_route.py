"""Branches and Record-Route tokens: what they name, and that nobody else can make them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.flow import Flow, Hop
from edge.core.tokens.branch import Branches
from edge.core.tokens.dialog import Dialog
from edge.core.tokens.record_route import DialogTokens

KEYS = {"k1": bytes(range(32)), "k0": bytes(32)}
AT = 1_700_000_000_000
"""Milliseconds since 1970."""
PHONE = Hop(Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 40_000), "edge-1")
BROWSER = Hop(Flow("wss", "2001:db8::1", 443, "2001:db8::7", 40_001, 9), "edge-2", "b00t")
TRUNK = Hop(Flow("tls", "", 0, "203.0.113.9", 5061))


def test_y15_branches_differ_by_edge_by_life_and_by_number_and_have_the_cookie() -> None:
    edges = [Branches(KEYS, name, boot) for name in ("edge-1", "edge-2") for boot in ("a", "b")]
    branches = [edge.make("00ff00ff") for edge in edges for _ in range(100)]
    assert len(set(branches)) == 400
    assert all(branch.startswith("z9hG4bK") for branch in branches)


def test_e05_e11_a_branch_names_its_edge_and_its_life_to_all_edges_whatever_the_case() -> None:
    branch = Branches(KEYS, "edge-1", "b00t").make("00ff00ff")
    other = Branches({"k0": KEYS["k0"], "k1": KEYS["k1"]}, "edge-2", "x")
    for spelled in (branch, branch.lower(), branch.upper()):
        assert other.verify(spelled) == ("edge-1", "b00t", "00ff00ff")


@given(st.text(max_size=120))
def test_no_other_text_is_a_branch_of_ours(text: str) -> None:
    ours = Branches(KEYS, "edge-1", "b00t")
    assert ours.verify(text) is None
    assert ours.verify("z9hG4bK" + text) is None


def test_a_branch_with_any_character_changed_is_not_ours() -> None:
    ours = Branches(KEYS, "edge-1", "b00t")
    branch = ours.make("00ff00ff")
    for at in range(len("z9hG4bK"), len(branch)):
        changed = branch[:at] + ("b" if branch[at] != "b" else "c") + branch[at + 1 :]
        assert ours.verify(changed) is None


@pytest.mark.parametrize("caller", [PHONE, BROWSER, TRUNK])
@pytest.mark.parametrize("callee", [PHONE, BROWSER, TRUNK])
def test_n10_a_token_names_both_next_hops_and_the_direction(caller: Hop, callee: Hop) -> None:
    dialog = Dialog(caller, callee, 3)
    token = DialogTokens(KEYS).make(dialog, "call-1", "from-1", AT)
    assert token.isalnum()
    assert token == token.lower()
    edge = DialogTokens({"k0": KEYS["k0"], "k1": KEYS["k1"]})
    assert edge.open(token, "call-1", ("from-1", "to-1"), AT) == (dialog, True)
    assert edge.open(token.upper(), "call-1", ("to-1", "from-1"), AT) == (dialog, False)


def test_y35_a_token_leads_nowhere_after_a_day() -> None:
    tokens = DialogTokens(KEYS)
    token = tokens.make(Dialog(PHONE, TRUNK), "call-1", "from-1", AT)
    assert tokens.open(token, "call-1", ("from-1", "to-1"), AT + 86_400_000) is not None
    assert tokens.open(token, "call-1", ("from-1", "to-1"), AT + 86_520_000) is None


def test_y35_a_token_of_another_call_or_another_caller_opens_nothing() -> None:
    tokens = DialogTokens(KEYS)
    token = tokens.make(Dialog(PHONE, TRUNK), "call-1", "from-1", AT)
    assert tokens.open(token, "call-2", ("from-1", "to-1"), AT) is None
    assert tokens.open(token, "call-1", ("from-2", "to-1"), AT) is None
    assert tokens.open(token, "call-1", ("", ""), AT) is None
    assert tokens.is_ours(token)


def test_n05_a_changed_token_opens_nothing() -> None:
    tokens = DialogTokens(KEYS)
    token = tokens.make(Dialog(PHONE, BROWSER), "call-1", "from-1", AT)
    for at in range(len(token)):
        changed = token[:at] + ("b" if token[at] != "b" else "c") + token[at + 1 :]
        assert tokens.open(changed, "call-1", ("from-1", "to-1"), AT) is None
    assert DialogTokens({"k1": bytes(31)}).open(token, "call-1", ("from-1", "to-1"), AT) is None


@given(st.text(max_size=200))
def test_any_text_is_no_token(text: str) -> None:
    assert not DialogTokens(KEYS).is_ours(text)


def test_a_user_part_longer_than_any_token_is_not_remembered() -> None:
    dialogs = DialogTokens(KEYS)
    assert not dialogs.is_ours("a" * 5000)
    assert not dialogs._opened.cache_info().currsize
