"""Outbound at the registrar's edge: what a phone that registers flows is told (RFC 5626 sections 5 and 6)."""

import pytest

from edge.config import EdgeConfig, core_settings
from runtime.config import Common
from runtime.errors import ConfigError
from tests.kit.edge import NOW, answer, asked, core, credible, heard, receive, registered

FLOW = '<sip:alice@10.0.0.9:5062>;+sip.instance="<urn:uuid:1>";reg-id=1'
OUTBOUND = "Supported: path, outbound"
PROXY = "Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKphone"


def registers(edge, *rows, contact=FLOW):
    """The 200 to a REGISTER."""
    command = asked(receive(edge, credible(*rows, contact=contact)))
    edge.replied([registered(command)], NOW)
    (response,) = heard(edge.take())
    assert response.status == 200
    return command, response


def test_r34_a_phone_that_registers_a_flow_is_told_that_we_do_outbound() -> None:
    command, response = registers(core(), OUTBOUND)
    (contact,) = command.register.contacts
    assert (contact.instance, contact.reg_id) == ("<urn:uuid:1>", 1)
    assert response.values("require") == ["outbound"]
    assert response.values("path") == [command.register.path[0].replace(";lr>", ";lr;ob>")]
    assert response.values("supported") == ["path", "outbound"]
    assert response.first("flow-timer") is None


@pytest.mark.parametrize(
    ("contact", "supported"),
    [
        (FLOW, "Supported: path"),
        ('<sip:alice@10.0.0.9:5062>;+sip.instance="<urn:uuid:1>"', OUTBOUND),
        ("<sip:alice@10.0.0.9:5062>;reg-id=1", OUTBOUND),
        (f"{FLOW};expires=0", OUTBOUND),
        ("<sip:alice@10.0.0.9:5062>", OUTBOUND),
    ],
)
def test_r34_nobody_else_is_told_so(contact: str, supported: str) -> None:
    command, response = registers(core(flow_timer=60), supported, contact=contact)
    assert response.first("require") is None
    assert response.first("flow-timer") is None
    assert response.values("path") == list(command.register.path)


def test_r34_flow_timer_is_told_where_it_is_set() -> None:
    _, response = registers(core(flow_timer=90), OUTBOUND)
    assert response.first("flow-timer") == "90"


def test_r34_outbound_may_be_required() -> None:
    _, response = registers(core(), OUTBOUND, "Require: outbound")
    assert response.values("require") == ["outbound"]


@pytest.mark.parametrize("path", [(), ("Path: <sip:edge.elsewhere.test;lr>",), ("Path: <sip:a;lr;ob>, <sip:b;lr>",)])
def test_r36_a_flow_that_comes_by_a_proxy_without_outbound_is_439(path: tuple[str, ...]) -> None:
    edge = core()
    response = answer(edge, credible(PROXY, OUTBOUND, *path, contact=FLOW))
    assert (response.status, response.reason) == (439, "First Hop Lacks Outbound Support")
    assert not edge.registers.pending


@pytest.mark.parametrize(
    ("contact", "rows"),
    [
        (FLOW, (PROXY,)),
        (FLOW, (PROXY, OUTBOUND, "Path: <sip:edge.elsewhere.test;lr;ob>")),
        ("<sip:alice@10.0.0.9:5062>", (PROXY, OUTBOUND)),
    ],
)
def test_r36_what_else_comes_by_a_proxy_is_registered_as_no_flow(contact: str, rows: tuple[str, ...]) -> None:
    command, response = registers(core(), *rows, contact=contact)
    assert [each.reg_id for each in command.register.contacts] == [None]
    assert response.first("require") is None


OTHER = "<sip:alice@10.0.0.9:5070>"


@pytest.mark.parametrize("other", [OTHER, FLOW.replace("reg-id=1", "reg-id=2")])
def test_r35_a_flow_beside_another_contact_is_400(other: str) -> None:
    edge = core()
    response = answer(edge, credible(OUTBOUND, contact=f"{FLOW}, {other}"))
    assert (response.status, response.reason) == (400, "One Flow In One REGISTER")
    assert not edge.registers.pending


@pytest.mark.parametrize(
    ("contact", "rows"),
    [
        (f"{FLOW}, {OTHER};expires=0", (OUTBOUND,)),
        (f"{FLOW};expires=0, {OTHER}", (OUTBOUND,)),
        (f"{FLOW}, {OTHER}", (PROXY,)),  # its reg-id is ignored
        (f"<sip:alice@10.0.0.9:5062>;reg-id=1, {OTHER}", (OUTBOUND,)),  # as is this one
    ],
)
def test_r35_a_flow_beside_a_contact_that_is_removed_is_registered(contact: str, rows: tuple[str, ...]) -> None:
    command, _ = registers(core(), *rows, contact=contact)
    assert len(command.register.contacts) == 2


# Service-Route


def test_r40_service_route_is_in_the_200_where_it_is_set_and_nowhere_else() -> None:
    _, response = registers(core())
    assert response.first("service-route") is None
    routes = ("sip:sip.example.test;lr", "sip:inner.example.test:5080;lr")
    edge = core(service_route=routes)
    _, response = registers(edge)
    assert response.values("service-route") == [f"<{uri}>" for uri in routes]
    refused = answer(edge, credible(to="<tel:+5548999>", via="SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK-2;rport"))
    assert (refused.status, refused.first("service-route")) == (400, None)


@pytest.mark.parametrize("text", ["sip.example.test", "sip:sip.example.test", "tel:+1;lr", "sip:a;lr>, <sip:b", ""])
def test_r40_a_route_that_no_phone_could_take_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_SERVICE_ROUTE"):
        core_settings(EdgeConfig(service_route=(text,)), Common(), frozenset())
    core_settings(EdgeConfig(service_route=("sips:sip.example.test:5061;lr",)), Common(), frozenset())
