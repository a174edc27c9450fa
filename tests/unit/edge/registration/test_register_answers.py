"""REGISTER through the edge's core: what is asked of authsvc, and what is answered."""

import msgspec
import pytest

from edge.core.tokens.path import FlowTokens
from events.replies import Refused
from tests.kit.edge import (
    KEYS,
    NOW,
    TCP,
    UDP,
    WALL,
    answer,
    asked,
    authorization,
    binding,
    challenge_nonce,
    core,
    credible,
    heard,
    receive,
    registered,
    request,
)

# --- asked of authsvc ---------------------------------------------------------------------------------------------


def test_command_says_all_that_the_request_says() -> None:
    contact = '"Alice" <sip:alice@10.0.0.9:5062;ob>;expires=120;q=0.5;+sip.instance="<urn:uuid:1>";reg-id=2;x="a,b"'
    data = credible(
        "Expires: 600",
        "Allow: INVITE, ACK, BYE, FOO",
        "User-Agent: Desk 1",
        contact=contact,
        cseq=9,
    )
    actions = receive(core(), data)
    command = asked(actions)
    assert actions.publishes[0].key == "alice@example.test"
    assert (command.aor, command.source, command.method) == ("alice@example.test", "198.51.100.7", "REGISTER")
    assert (command.reply.edge, command.reply.boot) == ("edge-1", "b00t")
    assert command.reply.deadline == int(WALL * 1000) + 2000
    register = command.register
    assert (register.call_id, register.cseq, register.branch, register.expires) == ("call-1", 9, "z9hG4bK-1", 600)
    assert (register.received, register.socket) == ("sip:198.51.100.7:40000;transport=udp", "udp:192.0.2.1:5060")
    assert (register.user_agent, register.methods) == ("Desk 1", 1 + 4 + 8)
    (given,) = register.contacts
    assert (given.uri, given.expires, given.q) == ("sip:alice@10.0.0.9:5062;ob", 120, 0.5)
    assert (given.instance, given.reg_id) == ("<urn:uuid:1>", 2)
    assert given.params == ';q=0.5;+sip.instance="<urn:uuid:1>";reg-id=2;x="a,b"'


def test_r08_r09_query_and_star() -> None:
    edge = core()
    assert asked(receive(edge, credible(contact=None))).register.contacts == ()
    star = asked(
        receive(
            edge,
            credible(
                "Expires: 0",
                contact="*",
                via="SIP/2.0/UDP h;branch=z9hG4bK2",
            ),
        )
    ).register
    assert (star.star, star.contacts, star.expires) == (True, (), 0)


@pytest.mark.parametrize(("text", "seconds"), [("soon", 3600), ("-1", 3600), ("99999999999", 2**32 - 1), ("60", 60)])
def test_p14_malformed_expires_counts_as_3600(text: str, seconds: int) -> None:
    data = credible(f"Expires: {text}", contact=f"<sip:a@b>;expires={text}")
    register = asked(receive(core(), data)).register
    assert (register.expires, register.contacts[0].expires) == (seconds, seconds)


def test_r05_r06_the_aor_comes_from_to_alone_and_is_canonical() -> None:
    data = request(
        "REGISTER",
        "sip:bob@example.test",
        authorization(),
        from_="<sip:carol@example.test>;tag=1",
        to="<sip:%61lice@EXAMPLE.test:5070;user=phone;x=1>",
    )
    assert asked(receive(core(), data)).aor == "alice@example.test"


def test_own_addresses_as_domain_mean_the_default_domain_only_where_allowed() -> None:
    data = request("REGISTER", "sip:192.0.2.1", authorization(uri="sip:192.0.2.1"), to="<sip:alice@192.0.2.1>")
    assert asked(receive(core(own_addresses=True), data)).aor == "alice@example.test"
    assert answer(core(), data).status == 403


def test_r07_to_of_another_domain_is_for_authsvc_to_refuse() -> None:
    data = credible(to="<sip:alice@elsewhere.test>")
    assert asked(receive(core(), data)).aor == "alice@elsewhere.test"


def test_n04_n16_our_path_alone_stands_in_the_command_and_names_the_flow() -> None:
    data = credible("Path: <sip:evil@198.51.100.66;lr>")
    (path,) = asked(receive(core(), data)).register.path
    assert path.startswith("<sip:")
    assert path.endswith("@sip.example.test;lr>")
    named = FlowTokens(KEYS, "edge-9", "other", "x").verify(path[5:].partition("@")[0])
    assert named is not None
    assert (named.edge, named.boot, named.flow) == ("edge-1", "", UDP)


PROXYS = "<sip:t0ken@198.51.100.7:5060;lr>", '"Floor 2, left" <sip:10.0.0.2;lr>;x="a,b"'


def test_r33_n16_a_listed_proxys_path_stands_behind_ours_and_in_the_200() -> None:
    edge = core(is_peer=lambda host: host == UDP.remote_host)
    contact = "<sip:alice@10.0.0.9:5062>, <sip:alice@203.0.113.9>"
    command = asked(receive(edge, credible(f"Path: {PROXYS[0]},{PROXYS[1]}", "Supported: path", contact=contact)))
    ours, *others = command.register.path
    assert ours.endswith("@sip.example.test;lr>")
    assert tuple(others) == PROXYS
    assert [each.path for each in command.register.contacts] == [None, None]  # by the proxy, wherever they say
    edge.replied([registered(command)], NOW)
    assert heard(edge.take())[0].values("path") == [ours, *PROXYS]


@pytest.mark.parametrize("path", ["sip:10.0.0.2;lr", "<tel:123>", "<sip:10.0.0.2", "<sip:é@10.0.0.2;lr>"])
def test_n16_a_listed_proxys_path_that_is_none_is_400(path: str) -> None:
    edge = core(is_peer=lambda host: True)
    assert answer(edge, credible(f"Path: {path}")).status == 400


# --- answered -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds_left", "shown"), [(301, 300), (300, 300), (0.3, 1)])
def test_r13_r22_seconds_left_are_never_more_than_granted_nor_0(seconds_left: float, shown: int) -> None:
    """The edge's idea of the log's time may be behind that of the decision."""
    edge = core()
    command = asked(receive(edge, credible()))
    live = msgspec.structs.replace(binding(), expires=int(WALL * 1000) + int(seconds_left * 1000))
    edge.replied([registered(command, [live])], NOW)
    (response,) = heard(edge.take())
    assert response.values("contact") == [f"<sip:alice@10.0.0.9:5062>;expires={shown}"]


def test_r22_r23_n01_200_has_every_binding_as_sent_with_seconds_left_and_date() -> None:
    edge = core()
    command = asked(receive(edge, credible("Supported: path")))
    bindings = [
        binding("sip:alice@10.0.0.9:5062;x=1?Route=%3Csip:a%3E", params=';q=0.5;+sip.instance="<urn:uuid:1>"'),
        binding("sip:other@10.1.1.1", seconds=77, id_=2),
        binding("sip:over@10.1.1.1", seconds=0, id_=3),
    ]
    edge.replied([registered(command, bindings)], NOW + 0.02)
    actions = edge.take()
    (response,) = heard(actions)
    assert response.status == 200
    assert response.values("contact") == [
        '<sip:alice@10.0.0.9:5062;x=1?Route=%3Csip:a%3E>;q=0.5;+sip.instance="<urn:uuid:1>";expires=300',
        "<sip:other@10.1.1.1>;expires=77",
    ]
    assert response.first("date") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert response.values("supported") == ["path", "outbound"]
    assert response.to.tag
    assert response.first("server") is None


def test_r33_our_path_is_copied_to_the_200() -> None:
    edge = core()
    command = asked(receive(edge, credible()))
    edge.replied([registered(command)], NOW)
    assert heard(edge.take())[0].values("path") == list(command.register.path)


def test_r27_no_6xx_and_no_record_route_is_sent() -> None:
    edge = core()
    command = asked(receive(edge, credible("Record-Route: <sip:p;lr>")))
    edge.replied([Refused(command.id, "edge-1", "b00t", 603, "Decline")], NOW)
    (response,) = heard(edge.take())
    assert response.status == 500
    assert response.first("record-route") is None


def test_refused_becomes_the_final_response_with_its_headers() -> None:
    edge = core()
    command = asked(receive(edge, credible()))
    edge.replied([Refused(command.id, "edge-1", "b00t", 423, "Interval Too Brief", (("Min-Expires", "60"),))], NOW)
    (response,) = heard(edge.take())
    assert (response.status, response.reason, response.first("min-expires")) == (423, "Interval Too Brief", "60")


def test_p24_control_characters_of_a_reply_never_come_out_raw() -> None:
    edge = core()
    command = asked(receive(edge, credible()))
    edge.replied([Refused(command.id, "edge-1", "b00t", 403, "No\r\nX: 1", (("Warning", "a\r\nY: 2"),))], NOW)
    (response,) = heard(edge.take())
    assert response.first("x") is None
    assert response.first("y") is None


def test_a01_a08_refused_401_gets_a_fresh_challenge_with_stale_and_algorithms() -> None:
    edge = core()
    command = asked(receive(edge, request("REGISTER", "sip:example.test", authorization(age=100))))
    edge.replied([Refused(command.id, "edge-1", "b00t", 401, "", stale=True, algorithms=("SHA-256",))], NOW)
    (response,) = heard(edge.take())
    (challenge,) = response.values("www-authenticate")
    assert "stale=true" in challenge
    assert "algorithm=SHA-256" in challenge
    assert 'realm="example.test"' in challenge
    assert challenge_nonce(response) != command.digest.nonce


def test_503_always_has_retry_after() -> None:
    edge = core(retry_after=(7, 7))
    command = asked(receive(edge, credible()))
    edge.replied([Refused(command.id, "edge-1", "b00t", 503, "", (("Retry-After", "3"),))], NOW)
    assert heard(edge.take())[0].values("retry-after") == ["3"]
    command = asked(receive(edge, credible(via="SIP/2.0/UDP h;branch=z9hG4bK2")))
    edge.replied([Refused(command.id, "edge-1", "b00t", 503, "")], NOW)
    assert heard(edge.take())[0].values("retry-after") == ["7"]


def test_e02_no_reply_by_the_deadline_is_503_and_never_a_late_200() -> None:
    edge = core()
    command = asked(receive(edge, credible()))
    assert edge.next_timer() == NOW + 2.0
    edge.on_time(NOW + 1.9)
    assert not edge.take().sends
    edge.on_time(NOW + 2.0)
    actions = edge.take()
    (response,) = heard(actions)
    assert (response.status, response.first("retry-after")) == (503, "5")
    assert actions.drops == {"deadline": 1}
    edge.replied([registered(command)], NOW + 2.1)
    late = edge.take()
    assert not late.sends
    assert late.drops == {"late-reply": 1}
    # Its retransmission hears the 503 again, not the 200 that came too late.
    again = receive(edge, credible(), now=NOW + 2.5)
    assert heard(again)[0].status == 503
    assert not again.publishes


def test_r21_what_the_log_does_not_take_is_503_at_once() -> None:
    edge = core()
    command = asked(receive(edge, credible()))
    edge.unpublished([command.id, "unknown"], NOW + 0.1)
    (response,) = heard(edge.take())
    assert (response.status, response.first("retry-after")) == (503, "5")


def test_before_the_log_is_heard_registers_get_503_and_challenges_go_on() -> None:
    edge = core(serving=False)
    assert answer(edge, request()).status == 401
    response = answer(edge, credible())
    assert response.status == 503
    assert response.first("retry-after")
    assert not len(edge.registers)


def test_s04_above_the_bound_of_pending_ones_503_statelessly() -> None:
    edge = core(max_pending=1)
    asked(receive(edge, credible()))
    data = credible(via="SIP/2.0/UDP h;branch=z9hG4bK2")
    actions = receive(edge, data)
    assert heard(actions)[0].status == 503
    assert actions.drops == {"shed": 1}
    assert len(edge.registers) == 1


def test_a25_no_secret_shows_in_a_repr() -> None:
    edge = core()
    row = authorization()
    actions = receive(edge, request("REGISTER", "sip:example.test", row))
    secret = asked(actions).digest.response
    assert secret not in repr(edge)
    assert secret not in repr(actions)
    assert secret not in repr(edge.registers)


def test_stream_answers_go_by_the_same_connection() -> None:
    edge = core()
    command = asked(
        receive(
            edge,
            credible(via="SIP/2.0/TCP h:5071;branch=z9hG4bK1"),
            TCP,
        )
    )
    assert command.register.received == "sip:198.51.100.7:40000;transport=tcp"
    edge.replied([registered(command)], NOW)
    (send,) = edge.take().sends
    # T04: the sent-by port is where a new connection would go.
    assert (send.flow, send.port) == (TCP, 5071)
    # Timer J is 0 on streams.
    assert not len(edge.registers)


@pytest.mark.parametrize(
    ("contact", "rows", "taken"),
    [
        ("<sips:alice@10.0.0.9:5062>;expires=0", (), True),
        ("<sips:alice@10.0.0.9:5062>;expires=00", (), True),
        ('<sips:alice@10.0.0.9:5062>;expires="0"', ("Expires: 3600",), True),
        ("<sips:alice@10.0.0.9:5062>", ("Expires: 00",), True),
        ("<sips:alice@10.0.0.9:5062>;expires=3600", ("Expires: 0",), False),
        ("<sips:alice@10.0.0.9:5062>", (), False),
    ],
)
def test_t18_a_sips_contact_in_clear_may_only_be_removed_by_whichever_expires_counts(
    contact: str, rows: tuple[str, ...], taken: bool
) -> None:
    edge = core()
    actions = receive(edge, credible(*rows, contact=contact))

    assert [response.status for response in heard(actions)] == ([] if taken else [400])
    assert len(actions.publishes) == taken
