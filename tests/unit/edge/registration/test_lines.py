"""The flows of registered phones: pinged on UDP, closed for an operator who kicks (CHECKLIST N02)."""

import msgspec
import pytest

from edge.core.dispatch import EdgeCore
from edge.core.flow import Flow
from edge.core.tokens.path import FlowTokens
from events.registrations import Binding
from events.replies import CloseFlow
from sipcore.message import Request, respond
from sipcore.parser import parse_datagram
from tests.kit.edge import KEYS, NOW, TCP, UDP, asked, binding, core, credible, receive, registered


def test_n02_a_phones_answer_to_our_ping_is_no_drop() -> None:
    edge = core(keepalive_seconds=20.0)
    command = asked(receive(edge, credible()))
    assert command.register is not None
    path = command.register.contacts[0].path or command.register.path
    edge.replied([registered(command, [msgspec.structs.replace(binding(), path=path)])], NOW)
    edge.take()
    sends = []
    for second in range(1, 22):
        edge.on_time(NOW + second)
        sends += edge.take().sends
    pings = [each for send in sends if (each := parse_datagram(send.data)).first("cseq") == "1 OPTIONS"]
    assert isinstance(pings[0], Request)
    for status in (200, 404, 405, 501):
        assert receive(edge, respond(pings[0], status, to_tag="x").encode(), now=NOW + 22).drops == {}


def test_n02_lines_of_one_socket_are_pinged_whichever_of_them_is_kicked_or_unregisters() -> None:
    edge = core(keepalive_seconds=20.0)
    path = ""
    for user in ("alice", "bob"):
        via = f"SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK-{user};rport"
        command = asked(receive(edge, credible(to=f"<sip:{user}@example.test>", call_id=user, via=via)))
        assert command.register is not None
        (path,) = command.register.contacts[0].path or command.register.path
        edge.replied([registered(command, [msgspec.structs.replace(binding(), path=(path,))])], NOW)
        edge.take()
    edge.replied([CloseFlow("1", "edge-1", "", path, "bob@example.test")], NOW)
    assert edge.take().drops == {"flow-left": 1}
    assert len(pings_of(edge, NOW, 40)) == 2
    edge.replied([CloseFlow("2", "edge-1", "", path, "alice@example.test")], NOW + 40)
    assert pings_of(edge, NOW + 40, 40) == []


def registers(edge: EdgeCore, flow: Flow, *others: Binding, number: int = 1) -> Binding:
    """Alice's phone registers by this flow; the bindings are its own and these others."""
    transport = flow.transport.upper()
    via = f"SIP/2.0/{transport} 10.0.0.9:5062;branch=z9hG4bK-{transport}-{flow.remote_port}-{number};rport"
    command = asked(receive(edge, credible(via=via), flow))
    assert command.register is not None
    path = command.register.contacts[0].path or command.register.path
    own = msgspec.structs.replace(binding(id_=flow.remote_port), path=path)
    edge.replied([registered(command, [own, *others])], NOW)
    edge.take()
    return own


OTHER_PORT = msgspec.structs.replace(UDP, remote_port=40_001)


@pytest.mark.parametrize(("moved", "pings"), [(OTHER_PORT, 2), (TCP, 0)], ids=["to another port", "to a connection"])
def test_n02_a_phone_that_has_moved_is_not_pinged_where_it_was(moved: Flow, pings: int) -> None:
    edge = core(keepalive_seconds=20.0)
    registers(edge, UDP)
    registers(edge, moved)
    assert [ping.uri for ping in pings_of(edge, NOW, 40)] == [f"sip:{moved.remote_host}:{moved.remote_port}"] * pings


def test_n02_a_phone_that_came_back_to_where_it_was_is_pinged_there() -> None:
    edge = core(keepalive_seconds=20.0)
    for number, flow in enumerate((UDP, OTHER_PORT, UDP)):
        registers(edge, flow, number=number)
    assert {ping.uri for ping in pings_of(edge, NOW, 40)} == {f"sip:{UDP.remote_host}:{UDP.remote_port}"}


@pytest.mark.parametrize("peer", [False, True], ids=["of a phone", "of a listed peer"])
def test_n03_a_flow_that_a_phone_has_left_for_another_edge_is_not_pinged(peer: bool) -> None:
    edge = core(keepalive_seconds=20.0, is_peer=lambda host: peer)
    (path,) = registers(edge, UDP).path
    edge.replied([CloseFlow("1", "edge-1", "", path, "alice@example.test")], NOW)
    assert edge.take().drops == {"flow-left": 1}
    assert pings_of(edge, NOW, 40) == []


def test_n02_what_one_phone_of_a_user_does_leaves_the_pings_of_the_others() -> None:
    edge = core(keepalive_seconds=20.0)
    first = registers(edge, UDP)
    registers(edge, OTHER_PORT, first)
    assert len({ping.uri for ping in pings_of(edge, NOW, 20)}) == 2
    registers(edge, TCP, first)
    assert {ping.uri for ping in pings_of(edge, NOW + 20, 40)} == {f"sip:{UDP.remote_host}:{UDP.remote_port}"}


def pings_of(edge: EdgeCore, now: float, seconds: int) -> list[Request]:
    """The keep-alives that are sent in so many seconds."""
    sends = []
    for second in range(1, seconds + 1):
        edge.on_time(now + second)
        sends += edge.take().sends
    return [ping for send in sends if isinstance(ping := parse_datagram(send.data), Request)]


def test_a_kicked_flow_is_closed_if_it_is_a_connection_of_this_life_and_else_nothing_is() -> None:
    edge = core()
    tokens = FlowTokens(KEYS, "edge-1", "b00t", "sip.example.test")
    strangers = [FlowTokens(KEYS, "edge-1", "other", "x"), FlowTokens(KEYS, "edge-2", "b00t", "x")]
    paths = [each.names(flow).path for each in strangers for flow in (TCP,)] + ["", "<sip:token@edges;lr>"]
    edge.replied([CloseFlow("1", "edge-1", "b00t", path) for path in paths], NOW)
    actions = edge.take()
    assert (actions.closes, actions.drops) == ([], {"closing-of-no-flow": 4})
    edge.replied([CloseFlow("1", "edge-1", "b00t", tokens.names(flow).path) for flow in (TCP, UDP)], NOW)
    actions = edge.take()
    assert (actions.closes, actions.drops) == ([TCP], {"flow-kicked": 1, "flow-left": 1})


def test_a_kick_closes_no_connection_of_a_listed_peer_since_others_phones_come_by_it() -> None:
    edge = core(is_peer=lambda host: host == TCP.remote_host)
    path = FlowTokens(KEYS, "edge-1", "b00t", "sip.example.test").names(TCP).path
    edge.replied([CloseFlow("1", "edge-1", "b00t", path)], NOW)
    actions = edge.take()
    assert (actions.closes, actions.drops) == ([], {"closing-of-a-peer": 1})
