"""GRUUs at the registrar's edge: who gets them, and which Contacts are refused (RFC 5627 section 5; R37, R38)."""

import pytest
from msgspec.structs import replace

from edge.core.tokens.gruu import Gruu, Gruus
from events.registrations import Binding
from sipcore.message import Response
from sipcore.uri import parse_uri
from tests.kit.edge import KEYS, NOW, WALL, answer, asked, binding, core, credible, heard, receive, registered

INSTANCE = "<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"
PHONE = f'<sip:alice@10.0.0.9:5062>;+sip.instance="{INSTANCE}"'
GRUU = "Supported: path, GRUU"
AT = int(WALL * 1000)
BOUND = replace(binding(params=f';+sip.instance="{INSTANCE}"'), instance=INSTANCE, gruus_since=AT - 5000)
GRUUS = Gruus(KEYS)


def registers(
    *rows: str, contact: str | None = PHONE, bindings: tuple[Binding, ...] = (BOUND,)
) -> tuple[bool, Response]:
    """Whether the log was asked for GRUUs, and the 200."""
    edge = core()
    command = asked(receive(edge, credible(*rows, contact=contact)))
    edge.replied([registered(command, bindings)], NOW)
    (response,) = heard(edge.take())
    assert response.status == 200
    assert command.register is not None
    return command.register.gruu, response


def test_r37_a_phone_that_asks_gets_a_public_and_a_temporary_gruu() -> None:
    asked_for, response = registers(GRUU)
    assert asked_for
    (contact,) = response.contacts
    public, temporary = contact.get("pub-gruu"), contact.get("temp-gruu")
    assert public == GRUUS.public("alice@example.test", INSTANCE)
    assert temporary is not None
    assert GRUUS.read(parse_uri(temporary), "example.test") == Gruu("alice@example.test", INSTANCE[1:-1], AT)
    assert response.values("require") == []
    assert "gruu" not in response.values("supported")  # section 5.2


@pytest.mark.parametrize(
    ("rows", "contact", "bound"),
    [
        ((), PHONE, BOUND),
        ((GRUU,), "<sip:alice@10.0.0.9:5062>", replace(BOUND, instance=None, gruus_since=0)),
        ((GRUU,), PHONE, replace(BOUND, gruus_since=0)),
        ((GRUU,), PHONE, replace(BOUND, instance="<é>")),
    ],
)
def test_r37_nobody_else_gets_any(rows: tuple[str, ...], contact: str, bound: Binding) -> None:
    _, response = registers(*rows, contact=contact, bindings=(bound,))
    (given,) = response.contacts
    assert given.get("pub-gruu") is given.get("temp-gruu") is None


def test_r37_each_binding_has_those_of_its_own_phone() -> None:
    other = replace(BOUND, id=2, contact="sip:alice@192.0.2.7", instance="<urn:uuid:2>", params="")
    plain = binding("sip:alice@192.0.2.8", id_=3)
    _, response = registers(GRUU, bindings=(BOUND, other, plain))
    instances = [GRUUS.read(parse_uri(c.get("temp-gruu") or "sip:x"), "example.test") for c in response.contacts]
    assert [each and each.instance for each in instances] == [INSTANCE[1:-1], "urn:uuid:2", None]


@pytest.mark.parametrize("contact", [None, "<sip:alice@192.0.2.8>"])
def test_r37_who_asks_what_is_registered_hears_the_gruus_of_all_phones_and_makes_none(contact: str | None) -> None:
    """RFC 5627 section 5.2: in each Contact of the response, whatever the REGISTER itself named."""
    asked_for, response = registers(GRUU, contact=contact)
    assert not asked_for
    assert response.contacts[0].get("pub-gruu") == GRUUS.public("alice@example.test", INSTANCE)
    assert response.contacts[0].get("temp-gruu") is not None


def test_r37_gruu_may_be_required_and_what_a_phone_says_of_its_gruus_is_ignored() -> None:
    says = f'{PHONE};pub-gruu="sip:bob@example.test;gr=1";x=1;temp-gruu="sip:x@example.test;gr"'
    edge = core()
    command = asked(receive(edge, credible("Supported: gruu", "Require: gruu", contact=says)))
    assert command.register is not None
    (contact,) = command.register.contacts
    assert contact.params == f';+sip.instance="{INSTANCE}";x=1'
    assert contact.instance == INSTANCE


@pytest.mark.parametrize(
    "uri",
    [
        GRUUS.public("alice@example.test", INSTANCE),
        GRUUS.temporary("alice@example.test", INSTANCE, AT, bytes(8)),
        GRUUS.temporary("bob@example.test", INSTANCE, AT, bytes(8)),
        "sip:alice@EXAMPLE.test;gr=made-up",
        "sip:alice@example.test",
        "sip:alice@example.test;x=1",
    ],
)
def test_r38_a_contact_that_is_a_gruu_of_ours_or_the_aor_is_403(uri: str) -> None:
    contact = f'<{uri}>;+sip.instance="{INSTANCE}"'
    response = answer(core(), credible(GRUU, contact=contact))
    assert response.status == 403
    asked(receive(core(), credible(GRUU, contact=f"{contact};expires=0")))  # one that ends is nobody's loop


@pytest.mark.parametrize("uri", ["sip:alice@10.0.0.9;gr=urn:uuid:1", "sip:bob@10.0.0.9:5062", "sip:alice@10.0.0.9"])
def test_r38_a_self_made_gruu_and_an_address_are_contacts_as_any(uri: str) -> None:
    asked(receive(core(), credible(GRUU, contact=f'<{uri}>;+sip.instance="{INSTANCE}"')))
