"""The registrar over a real log: refusals, and what this version does not know."""

import json

import pytest

from events.commands import Contact
from events.limits import RECORD_BYTES
from events.registrations import WATERMARK_KEY
from events.topics import BINDINGS, REGISTRATIONS
from events.wire import cloud_event
from runtime.errors import LogUnavailable
from runtime.log.port import Append
from runtime.metrics import drops
from runtime.worker import Lost
from tests.kit.registrar import AOR, DESK, MOBILE, Site


async def test_refused_commands_before_a_snapshot_are_not_decided_again(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=1)))
    await registrar.work()
    await registrar.handler.snapshot()
    assert (await site.registrar().start()).offset == 1


# When the log does not do as it is told


async def test_r21_what_was_not_acknowledged_is_not_remembered(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))

    async def away(records):
        raise LogUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(registrar.log, "append", away)
        with pytest.raises(LogUnavailable):
            await registrar.work()
    assert registrar.contacts == {}
    await (await registrar.start()).work()
    assert registrar.contacts == {AOR: [DESK]}


async def test_r21_an_append_of_unknown_outcome_is_decided_once(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    original = registrar.log.append

    async def silent(records):
        await original(records)
        raise LogUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(registrar.log, "append", silent)
        with pytest.raises(LogUnavailable):
            await registrar.work()
    await (await registrar.start()).work()
    assert await site.changes() == ["created"]


async def test_refusals_that_cannot_be_sent_hold_up_nobody(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=1)))

    async def away(records):
        raise LogUnavailable("away")

    before = drops("refusal-not-sent")
    monkeypatch.setattr(registrar.log, "append", away)
    await registrar.work()
    assert drops("refusal-not-sent") == before + 1
    assert registrar.partition.handled == 0


async def test_e24_a_record_that_the_log_refuses_is_a_named_refusal_and_others_go_on(site: Site, monkeypatch):
    monkeypatch.setattr("registrar.handler.STATE_BYTES", 10 * RECORD_BYTES)
    monkeypatch.setattr("events.limits.CONTACT", RECORD_BYTES)
    registrar = await site.registrar().start()
    huge = "sip:x@192.0.2.1;x=" + "y" * (RECORD_BYTES // 2 + 1000)  # stands in the truth twice
    await site.send(site.register(DESK), site.register(huge, aor="b@example.test"), site.register(MOBILE))
    with pytest.raises(Lost):
        await registrar.work()
    await (await registrar.start()).work()
    assert [(r.id, r.status) for r in await site.refusals()] == [("id-2", 500)]
    assert registrar.contacts == {AOR: [DESK, MOBILE]}


async def test_e24_a_state_above_the_bound_is_a_named_refusal(site: Site, monkeypatch):
    monkeypatch.setattr("registrar.handler.STATE_BYTES", 600)
    registrar = await site.registrar().start()
    await site.send(site.register(DESK), site.register(MOBILE, "sip:third@192.0.2.3"), site.register(DESK))
    await registrar.work()
    assert [(r.id, r.status, r.reason) for r in await site.refusals()] == [("id-2", 403, "Registration Too Large")]
    assert registrar.contacts == {AOR: [DESK]}


async def test_an_unreadable_record_on_registrations_is_void(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    await registrar.work()
    await site.log.append([Append(REGISTRATIONS, 0, b"x", b"garbage", (("c", b"999999"),))])
    await site.log.append([Append(REGISTRATIONS, 0, b"x", b"garbage")])
    assert (await site.registrar().start()).contacts == {AOR: [DESK]}


# What a newer version has written (E19)


async def next_truth(site: Site, change=lambda value: value, **headers: bytes) -> None:
    """Another record like the last truth, as the next version might write it."""
    truth = (await site.records(REGISTRATIONS))[-1]
    value = change(json.loads(truth.value))
    changed = [(k, headers.pop(k, v)) for k, v in truth.headers if k != "s"]
    added = [("s", b"1"), *((k, v) for k, v in headers.items() if v)]
    await site.log.append([Append(REGISTRATIONS, 0, truth.key, json.dumps(value).encode(), [*changed, *added])])


def with_binding(**fields: object):
    """A change of all bindings of a truth's state."""

    def change(value):
        for binding in value["state"]["bindings"]:
            binding.update(fields)
        return value

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_binding(path={"v": 2, "hops": []}),
        with_binding(expires="2027-01-01T00:00:00Z"),
        lambda value: value | {"state": {"at": None}},
        lambda value: value | {"state": []},
        lambda value: value | {"type": "ramal.BindingsMoved"},
        lambda value: value | {"changes": [{"kind": "moved", "id": 1, "contact": DESK}]},
        lambda value: {"type": "ramal.Moved", "to": "elsewhere"},
    ],
    ids=["type of a field", "another", "null", "no object", "type of a truth", "kind of change", "another truth"],
)
async def test_e19_a_truth_that_is_not_known_stops_its_partition_and_keeps_its_bytes(site: Site, change):
    newer = await site.registrar().start()
    await site.send(site.register(DESK))
    await newer.work()
    await newer.handler.snapshot()
    before = await site.records(BINDINGS)
    await next_truth(site, change)
    older = await site.registrar().start()
    assert "not known" in older.fault
    assert older.handler.partitions == {}
    await older.handler.snapshot()
    assert await site.records(BINDINGS) == before


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b'{"bindings":{}}', cloud_event("ramal.AorState", "registrar", "snapshot")),
        (b'{"contacts":[]}', cloud_event("ramal.AorState2", "registrar", "snapshot")),
        (b'{"at":1e999}', ()),
        (b'{"at":1,"x_newer":[[[1e999999]]]}', ()),
    ],
)
async def test_e19_a_snapshot_that_is_not_known_stops_its_partition_and_gets_no_tombstone(site: Site, value, headers):
    await site.log.append([Append(BINDINGS, 0, AOR.encode(), value, headers)])
    older = await site.registrar().start()
    await older.handler.snapshot()
    last = (await site.records(BINDINGS))[-1]
    assert (last.key, last.value) == (AOR.encode(), value)
    assert "not known" in older.fault
    assert older.handler.partitions == {}


async def test_e19_a_watermark_that_is_not_known_stops_its_partition(site: Site):
    await site.log.append([Append(BINDINGS, 0, WATERMARK_KEY.encode(), b'{"until":"2027"}')])
    assert "not known" in (await site.registrar().start()).fault


async def test_e16_e19_what_is_not_known_of_an_older_claim_is_void(site: Site):
    zombie = await site.registrar().start()
    await site.send(site.register(DESK))
    await zombie.work()
    owner = await site.registrar().start()
    await site.send(site.register(MOBILE))
    await owner.work()
    await next_truth(site, lambda value: value | {"type": "ramal.BindingsMoved"}, c=b"%d" % zombie.partition.claim)
    assert (await site.registrar().start()).contacts == {AOR: [DESK, MOBILE]}


async def test_e19_an_owner_behind_whom_an_unknown_way_of_claiming_stands_gives_the_partition_up(site: Site):
    owner = await site.registrar().start()
    await site.log.append([Append(REGISTRATIONS, 0, None, b"{}", cloud_event("ramal.ClaimedAnew", "registrar", "x"))])
    await site.send(site.register(DESK))
    with pytest.raises(Lost):
        await owner.work()
    assert owner.contacts == {}
    assert "not known" in (await owner.start()).fault


async def test_e19_unknown_fields_outlive_decisions_snapshots_restores_and_ends(site: Site):
    newer = await site.registrar().start()
    await site.send(site.register(DESK))
    await newer.work()
    await next_truth(site, lambda v: with_binding(x_proof="p")(v) | {"state": v["state"] | {"x_owner": {"n": 1}}})

    async def stands(bindings: list[str]) -> None:
        """So in the last truth, in the snapshot and behind a restore."""
        truth = json.loads((await site.records(REGISTRATIONS))[-1].value)["state"]
        [snapshot] = [r for r in await site.records(BINDINGS) if r.key == AOR.encode()][-1:]
        for state in (truth, json.loads(snapshot.value)):
            assert state["x_owner"] == {"n": 1}
            assert [b.get("x_proof") for b in state.get("bindings", ())] == bindings

    older = await site.registrar().start()
    assert older.partition.newer == {AOR}
    await site.send(site.register(DESK), site.register(MOBILE, call_id="call-2"))  # twice in one batch
    await older.work()
    await older.handler.snapshot()
    await stands(["p", None])
    third = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=0), Contact(MOBILE, expires=0)))
    await third.work()
    await third.handler.snapshot()
    await stands([])
    for _ in range(20):
        site.clock.now += 34
        await third.handler.tick()
        await third.work()
    await third.handler.snapshot()
    await stands([])  # what the AOR had to say in a newer version's words is not for this one to forget
    assert json.loads((await site.registrar().start()).partition.states[AOR])["x_owner"] == {"n": 1}
