"""Static membership of a consumer group (KIP-345): who comes back under its name takes its partitions at once.

aiokafka's coordinator says our `group.instance.id` when it joins, and nowhere else. Then a member whose place was
taken by another of its name hears "unknown member", joins again and takes the place back, and so does the other, for
ever. With the name in each request it hears FENCED_INSTANCE_ID: it delivers nothing more, and goes on asking; once
its name is free it hears "unknown member", and joins.
"""

import logging
from collections.abc import Callable
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

FENCED_INSTANCE_ID = 82
_TEXT = String("utf-8")

log = logging.getLogger("ramal.log")


class Coordinator(GroupCoordinator):  # type: ignore[misc]  # aiokafka ships no types
    """aiokafka's, with our name (None: dynamic membership) in all requests; `on_fenced` is called each time we hear
    that another has taken our place."""

    def __init__(self, *args: Any, group_instance_id: str | None, on_fenced: Callable[[], None], **kw: Any) -> None:
        self._on_fenced = on_fenced
        super().__init__(*args, group_instance_id=group_instance_id, **kw)

    async def is_member(self) -> bool:
        """Whether the group still knows us; False also when it does not answer."""
        return bool(self.generation > 0 and await self._do_heartbeat())

    async def _do_heartbeat(self) -> bool:
        try:
            return bool(await super()._do_heartbeat())
        except _FencedHeartbeat:
            return True  # there is nothing to repair; the next one is due as ever

    async def _send_req(self, request: Any) -> Any:
        response = await super()._send_req(self._named(request))
        if FENCED_INSTANCE_ID in _codes(response):
            self._on_fenced()
            if isinstance(request, HeartbeatRequest):
                raise _FencedHeartbeat
        return response

    def _named(self, request: Any) -> Any:
        name = self._group_instance_id
        if name is not None and isinstance(request, HeartbeatRequest):
            return _Heartbeat(self.group_id, self.generation, self.member_id, name)
        if name is not None and isinstance(request, OffsetCommitRequest):
            return _OffsetCommit(self.group_id, self.generation, self.member_id, name, request._topics)  # noqa: SLF001
        return request

    async def _maybe_leave_group(self) -> None:
        """A static member leaves, too: who stops in order does not let its partitions wait for the session's end."""
        if self.generation > 0 and self._group_instance_id is not None:
            try:
                await self._send_req(_LeaveGroup(self.group_id, self.member_id, self._group_instance_id))
            except errors.KafkaError as error:
                log.warning("could not leave the group", extra={"group": self.group_id, "cause": str(error)})
        await super()._maybe_leave_group()


async def expel(client: AIOKafkaClient, group: str, name: str) -> bool:
    """Has whoever is a group's member under this name leave it; whether anybody was. Raises KafkaError.

    One that lives joins again at its next heartbeat.
    """
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    response = await client.send(node, _LeaveGroup(group, "", name), group=ConnectionGroup.COORDINATION)
    codes = {response.error_code, *(code for _, _, code in response.members)}
    if codes <= {errors.UnknownMemberIdError.errno, 0}:
        return codes == {0}
    raise errors.for_code(max(codes))(group)


async def committed_offsets(client: AIOKafkaClient, group: str, topic: str) -> dict[int, int]:
    """The next offset that a group has committed of each partition of a topic that it has any of. Raises KafkaError.

    Not aiokafka's administration client: that takes a coordinator that does not know yet, or will not say, for a group
    that has committed nothing.
    """
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    response = await client.send(node, OffsetFetchRequest(group, None), group=ConnectionGroup.COORDINATION)
    there = [partition for name, partitions in response.topics if name == topic for partition in partitions]
    for code in (response.error_code, *(code for *_, code in there)):
        if code:
            raise errors.for_code(code)(group)
    return {number: offset for number, offset, _, _ in there if offset >= 0}


class _FencedHeartbeat(Exception):
    """Not a KafkaError: those are tried again at once."""


def _codes(response: Any) -> set[int]:
    if hasattr(response, "error_code"):
        return {response.error_code}
    if isinstance(response, _OffsetCommitResponse):
        return {code for _, partitions in response.topics for _, code in partitions}
    return set()


class _HeartbeatResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 12, 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _HeartbeatV3(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION = 12, 3
    RESPONSE_TYPE = _HeartbeatResponse
    SCHEMA = Schema(("group", _TEXT), ("generation_id", Int32), ("member_id", _TEXT), ("group_instance_id", _TEXT))


class _OffsetCommitResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 8, 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("topics", Array(("topic", _TEXT), ("partitions", Array(("partition", Int32), ("error_code", Int16))))),
    )


class _OffsetCommitV7(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION = 8, 7
    RESPONSE_TYPE = _OffsetCommitResponse
    SCHEMA = Schema(
        ("consumer_group", _TEXT),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        (
            "topics",
            Array(
                ("topic", _TEXT),
                (
                    "partitions",
                    Array(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _TEXT)),
                ),
            ),
        ),
    )


class _LeaveGroupResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 13, 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("members", Array(("member_id", _TEXT), ("group_instance_id", _TEXT), ("error_code", Int16))),
    )


class _LeaveGroupV3(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION = 13, 3
    RESPONSE_TYPE = _LeaveGroupResponse
    SCHEMA = Schema(("group", _TEXT), ("members", Array(("member_id", _TEXT), ("group_instance_id", _TEXT))))


class _Heartbeat(Request[_HeartbeatV3]):  # type: ignore[misc]
    API_KEY = 12

    def __init__(self, *values: Any) -> None:
        self._values = values

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(*self._values)


class _OffsetCommit(Request[_OffsetCommitV7]):  # type: ignore[misc]
    API_KEY = 8

    def __init__(self, group: str, generation: int, member_id: str, name: str, topics: Any) -> None:
        self._values = group, generation, member_id, name
        self._topics = [
            (topic, [(partition, offset, -1, metadata) for partition, offset, metadata in partitions])
            for topic, partitions in topics
        ]

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(*self._values, self._topics)


class _LeaveGroup(Request[_LeaveGroupV3]):  # type: ignore[misc]
    API_KEY = 13

    def __init__(self, group: str, member_id: str, name: str) -> None:
        self._values = group, [(member_id, name)]

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(*self._values)
