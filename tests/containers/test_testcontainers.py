"""The servers of the tests from images, by testcontainers: `make test-containers` runs the contract suite so."""

from pathlib import Path

import pytest

from ramal.backends import KafkaServer, LdapServer, MySQLServer, origin, start_ldap
from ramal.containers import IMAGES, ContainerChild, engine
from tests.containers.podman import FULL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not FULL, reason="servers come from images in `make test-containers`"),
]


def test_where_an_engine_answers_every_server_is_a_container(
    kafka: KafkaServer, mysql: MySQLServer, ldap: LdapServer
) -> None:
    for kind, server in (("kafka", kafka), ("mysql", mysql), ("ldap", ldap)):
        assert origin(kind) == f"the image {IMAGES[kind]}"
        assert isinstance(server.child, ContainerChild)
        assert server.alive()


def test_a_server_that_is_stopped_or_killed_leaves_no_container_and_starts_again_with_what_it_had(
    tmp_path: Path,
) -> None:
    def ours() -> set[str]:
        return {each.name for each in engine().containers.list(all=True)}

    before = ours()
    server = start_ldap(tmp_path, 3)
    (name,) = ours() - before
    assert name.startswith("ramal-ldap-")
    server.child.kill()
    assert not server.alive()
    assert ours() == before
    again = start_ldap(tmp_path, 3)
    assert again.url == server.url
    again.stop()
    assert ours() == before
