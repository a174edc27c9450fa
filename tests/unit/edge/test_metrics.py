"""What Prometheus hears of an edge's answers, calls and gateways."""

from prometheus_client import REGISTRY

from edge import metrics
from edge.core.actions import Actions, Final
from edge.core.gateways.routes import Gateway, Gateways, GatewaysConfig
from events.replies import Refused
from tests.kit.calls import DOMAIN, Cluster
from tests.kit.dialogs import BOB, TRUNK, invite, trunk
from tests.kit.edge import NOW, asked, core, credible, receive, registered, request


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_register_is_timed_from_its_arrival_to_the_final_response() -> None:
    edge = core()
    assert receive(edge, request()).finals == [Final("REGISTER", 401, 0.0)]
    command = asked(receive(edge, credible(cseq=2)))
    edge.replied([registered(command)], NOW + 0.25)
    assert edge.take().finals == [Final("REGISTER", 200, 0.25)]
    command = asked(receive(edge, credible(cseq=3, via="SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK-3;rport")))
    edge.replied([Refused(command.id, "edge-1", "b00t", 403, "Forbidden")], NOW + 1)
    assert edge.take().finals == [Final("REGISTER", 403, 1.0)]


def test_a_register_that_nothing_answers_is_timed_as_503_at_its_deadline() -> None:
    edge = core()
    asked(receive(edge, credible()))
    edge.on_time(NOW + 2.5)
    assert edge.take().finals == [Final("REGISTER", 503, 2.5)]


def test_an_invite_is_timed_once_whatever_is_answered_later() -> None:
    cluster = Cluster("edge-1")
    finals = cluster.finals
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, BOB)
    ringing = bob.got_request("INVITE")
    assert finals == []
    bob.respond(ringing, 180)
    assert finals == []
    cluster.now += 3
    bob.respond(ringing, 200, tag="one")
    bob.respond(ringing, 200, tag="two")  # a phone behind a forking proxy
    assert finals == [Final("INVITE", 200, 3.0)]
    alice.request("OPTIONS", BOB, authorized=True, call_id="other")
    bob.respond(bob.got_request("OPTIONS"), 200)
    assert len(finals) == 1, "no other method is timed"


def test_statuses_are_labels_that_rfcs_have_and_classes_of_all_others() -> None:
    assert [metrics.spelled(status) for status in (200, 486, 299, 499, 603, 699)] == [
        "200", "486", "2xx", "4xx", "603", "6xx",
    ]  # fmt: skip
    labels = {metrics.spelled(status) for status in range(100, 700)}
    assert len(labels) < 90


def test_what_a_wake_up_answered_is_in_the_histogram_by_method_and_status() -> None:
    actions = Actions()
    actions.finals += [Final("REGISTER", 200, 0.03), Final("INVITE", 499, 7.0)]
    actions.statuses |= {499: 2}
    before = [
        sample("ramal_edge_response_seconds_bucket", method="REGISTER", status="200", le=le) for le in ("0.02", "0.05")
    ]
    metrics.count(actions)
    after = [
        sample("ramal_edge_response_seconds_bucket", method="REGISTER", status="200", le=le) for le in ("0.02", "0.05")
    ]
    assert after == [before[0], before[1] + 1]
    assert sample("ramal_edge_response_seconds_sum", method="INVITE", status="4xx") >= 7
    assert sample("ramal_edge_responses_total", status="4xx") >= 2


def test_each_gateway_has_its_state_and_the_calls_that_went_by_it() -> None:
    gateways = Gateways(GatewaysConfig({"one": Gateway("sip:192.0.2.9"), "two": Gateway("sip:192.0.2.10")}))
    metrics.watch(gateways)
    assert [sample("ramal_edge_gateway_up", gateway=name) for name in ("one", "two")] == [1, 1]
    gateways.unanswered("two")
    gateways.unanswered("two")
    assert [sample("ramal_edge_gateway_up", gateway=name) for name in ("one", "two")] == [1, 0]
    gateways.answered("two", 200)
    assert sample("ramal_edge_gateway_up", gateway="two") == 1
    metrics.watch(Gateways(GatewaysConfig()))
    assert REGISTRY.get_sample_value("ramal_edge_gateway_up", {"gateway": "one"}) is None


def test_an_invite_by_a_gateway_counts_for_it() -> None:
    cluster = Cluster("edge-1", gateways=TRUNK)
    alice, pstn = cluster.phone("alice"), trunk(cluster)
    invite(alice, f"sip:33812800@{DOMAIN}")
    pstn.got_request("INVITE")
    assert cluster.by_gateway == dict.fromkeys(TRUNK.gateways, 1)
