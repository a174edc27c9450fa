"""authsvc.users.ldap on a real OpenLDAP: batches, exact names, hashes, TLS, a directory that hangs or restarts."""

import asyncio
import os
import signal
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from authsvc.config import AuthSettings
from authsvc.decider import Unknown
from authsvc.users.directory import Users
from authsvc.users.ha1 import User, from_ha1s, from_password
from authsvc.users.ldap import NAMES, SEARCHES, LdapUnavailable, LdapUsers
from ramal.backends import LdapServer, start_ldap
from ramal.processes import free_port
from runtime.config import Domain, Secret
from runtime.errors import ConfigError
from tests.kit.directory import ldap_settings
from tests.kit.stopping import stop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # ldap3 2.9.1 with pyasn1 0.6
    import ldap3

pytestmark = pytest.mark.integration

REALM = "example.test"
DOMAINS = {REALM: Domain(algorithms=("MD5", "SHA-256"), country="55", area="48")}


@asynccontextmanager
async def users_of(server: LdapServer, **changed: Any) -> AsyncIterator[LdapUsers]:
    source = LdapUsers(ldap_settings(server, **changed), DOMAINS)
    try:
        yield source
    finally:
        await source.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LdapServer]:
    """A directory that the test may hang, stop and fill."""
    server = start_ldap(tmp_path / "ldap", users=20)
    yield server
    if server.alive():
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


def add(server: LdapServer, *entries: tuple[str, dict[str, Any]]) -> None:
    """Adds people, each by its RDN under ou=Users."""
    connection = ldap3.Connection(ldap3.Server(server.url), server.bind_dn, server.bind_password, auto_bind=True)
    for rdn, attributes in entries:
        connection.add(f"{rdn},ou=Users,{server.base}", "inetOrgPerson", {"cn": "x", "sn": "x", **attributes})
        assert connection.result["result"] == 0, connection.result
    connection.unbind()


def password_of(name: str) -> User:
    return from_password(name, REALM, f"secret-{name}", DOMAINS[REALM].algorithms)


async def test_many_users_are_one_search(ldap: LdapServer) -> None:
    names = [f"u{n:05d}" for n in range(100)]
    async with users_of(ldap) as source:
        await source.find([("u00000", REALM)])
        searches, asked = SEARCHES._value.get(), NAMES._value.get()
        found = await source.find([(name, REALM) for name in [*names, "nobody"]])
    assert found == {(name, REALM): password_of(name) for name in names}
    assert (SEARCHES._value.get() - searches, NAMES._value.get() - asked) == (1, 101)


async def test_five_hundred_new_users_at_once_are_a_few_searches(ldap: LdapServer) -> None:
    async with users_of(ldap) as source:
        users = Users(AuthSettings(), DOMAINS, None, [source])
        left, done = {(f"u{n:05d}", REALM) for n in range(500)}, asyncio.Event()

        def found(keys: Any) -> None:
            left.difference_update(keys)
            if not left:
                done.set()

        users.found = found
        searches = SEARCHES._value.get()
        for key in sorted(left):
            assert users.ask_user(key)
        await done.wait()
        users.tick()
        assert users.user(("u00499", REALM)) == password_of("u00499")
        await users.stop()
    assert SEARCHES._value.get() - searches == 5


@pytest.mark.parametrize(
    "name",
    [
        "*",
        "u0000*",
        "*)(uid=*",
        "u00000)(|(uid=*",
        "\\",
        "\\2a",
        "u00000\x00",
        "\x00",
        "(",
        "ü",
        "日本",
        " u00000",
        "U00000",
    ],
)
async def test_a19_a_name_matches_at_most_the_user_of_that_very_name(ldap: LdapServer, name: str) -> None:
    async with users_of(ldap) as source:
        assert await source.find([(name, REALM), ("u00001", REALM)]) == {("u00001", REALM): password_of("u00001")}


async def test_a19_users_with_such_names_are_found(own: LdapServer) -> None:
    names = ["we*ird", "par(en)", "back\\slash", "jürgen", "日本"]
    rdns = [f"cn=person {n}" for n in range(len(names))]
    add(own, *((rdn, {"uid": name, "userPassword": f"secret-{name}"}) for rdn, name in zip(rdns, names, strict=True)))
    async with users_of(own) as source:
        found = await source.find([(name, REALM) for name in names])
    assert found == {(name, REALM): password_of(name) for name in names}


async def test_hashes_make_no_ha1_and_stored_ha1s_come_before_the_clear_text(own: LdapServer) -> None:
    md5 = "0123456789abcdef" * 2
    add(
        own,
        ("uid=hashed", {"userPassword": "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="}),
        ("uid=stored", {"description": md5, "userPassword": "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="}),
        ("uid=both", {"description": md5.upper(), "userPassword": "secret-both"}),
        ("uid=broken", {"description": "not an HA1"}),
    )
    async with users_of(own, ha1_attributes={"MD5": "description"}) as source:
        found = await source.find([(name, REALM) for name in ("hashed", "stored", "both", "broken")])
    assert found == {
        ("hashed", REALM): User(),
        ("stored", REALM): from_ha1s({"MD5": md5}),
        ("both", REALM): User(md5=md5, sha256=password_of("both").sha256),
        ("broken", REALM): User(),
    }


async def test_two_entries_of_one_uid_open_nothing(own: LdapServer, caplog: pytest.LogCaptureFixture) -> None:
    add(own, ("cn=one", {"uid": "twin", "userPassword": "a"}), ("cn=two", {"uid": "twin", "userPassword": "b"}))
    async with users_of(own) as source:
        assert await source.find([("twin", REALM)]) == {("twin", REALM): User()}
    assert "two entries" in caplog.text


async def test_y32_a_number_is_found_however_the_directory_writes_it(
    own: LdapServer, caplog: pytest.LogCaptureFixture
) -> None:
    written = {
        "a": "+55 48 3381-2800",
        "b": "4833812801",
        "c": "(48) 3381-2802",
        "d": "+55 (48) 3381-2803",
        "e": "55 48 33 81 28 04",
        "f": "2805",
        "g": ["+1 408 555-1212", "+55 48 3381-2806"],
        "h": "+55 48 3381-2807",
        "i": "4833812807",
    }
    add(own, *((f"uid={uid}", {"telephoneNumber": number}) for uid, number in written.items()))
    add(own, ("cn=nobody", {"telephoneNumber": "+55 48 3381-2808"}))
    owners = {
        **{f"+55483381280{n}": uid for n, uid in enumerate("abcde")},
        "2805": "f",
        "+14085551212": "g",
        "+554833812806": "g",
    }
    asked = [*owners, "+554833812807", "+554833812808", "+554833812809", "*"]
    async with users_of(own) as source:
        searches = SEARCHES._value.get()
        found = await source.find_numbers([(number, REALM) for number in asked] + [("2805", "elsewhere.test")])
        assert SEARCHES._value.get() - searches == 1
    assert found == {(number, REALM): (uid, REALM) for number, uid in owners.items()}
    assert caplog.text.count("a telephone number is of two entries, or of one without a uid") == 2


async def test_y32_a_search_for_numbers_that_fails_says_nothing_of_users(own: LdapServer) -> None:
    async with users_of(own, timeout=1.0) as source:
        stop(own.pid)
        with pytest.raises(LdapUnavailable):
            await source.find_numbers([("2805", REALM)])
        os.kill(own.pid, signal.SIGCONT)
        assert not source.away
        assert await source.find([("u00001", REALM)]) == {("u00001", REALM): password_of("u00001")}


async def test_other_domains_are_asked_for_only_where_the_directory_has_them(ldap: LdapServer) -> None:
    async with users_of(ldap, domains=("other.test",)) as source:
        assert await source.find([("u00000", REALM)]) == {}


async def test_a18_a_wrong_base_or_password_is_an_absence_and_makes_nobody_unknown(ldap: LdapServer) -> None:
    for wrong in ({"base": "dc=elsewhere"}, {"bind_password": Secret("canary-password")}):
        async with users_of(ldap, **wrong) as source:
            with pytest.raises(LdapUnavailable) as caught:
                await source.find([("u00000", REALM)])
            assert source.away
            assert "canary" not in str(caught.value)


async def test_a18_a_directory_that_hangs_frees_its_threads_and_comes_back_alone(own: LdapServer) -> None:
    async with users_of(own, timeout=0.5) as source:
        await source.find([("u00001", REALM)])
        stop(own.pid)
        with pytest.raises(LdapUnavailable):
            await source.find([("u00002", REALM)])
        # Known to be away now: nobody waits for it.
        with pytest.raises(LdapUnavailable):
            await source.find([("u00003", REALM)])
        os.kill(own.pid, signal.SIGCONT)
        async with asyncio.timeout(20):
            await source.back.wait()
        assert await source.find([("u00002", REALM)]) == {("u00002", REALM): password_of("u00002")}


async def test_a18_a_restarted_directory_costs_nobody_an_answer(own: LdapServer, tmp_path: Path) -> None:
    async with users_of(own) as source:
        await source.find([("u00001", REALM)])
        own.stop()
        again = start_ldap(tmp_path / "ldap", users=20)
        try:
            assert await source.find([("u00002", REALM)]) == {("u00002", REALM): password_of("u00002")}
        finally:
            again.stop()


async def test_a18_remembered_users_go_on_at_once_while_the_directory_hangs(own: LdapServer) -> None:
    """Also A22: they wait for nothing."""
    async with users_of(own, timeout=0.5) as source:
        now = [0.0]
        users = Users(AuthSettings(), DOMAINS, None, [source], clock=lambda: now[0])
        ended = asyncio.Event()
        users.found = lambda _: ended.set()
        users.ask_user(("u00001", REALM))
        await ended.wait()
        stop(own.pid)
        ended.clear()
        users.ask_user(("u00002", REALM))
        users.tick()
        assert users.user(("u00001", REALM)) == password_of("u00001")
        await ended.wait()
        assert users.user(("u00002", REALM)) is Unknown.AWAY
        now[0] = 1000.0
        users.tick()
        assert users.user(("u00001", REALM)) == password_of("u00001")
        os.kill(own.pid, signal.SIGCONT)
        await users.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself; its key beside it."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ldap -addext subjectAltName=IP:127.0.0.1"
    command = [*request.split(), "-keyout", str(path.with_name("key.pem")), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def secure(tmp_path: Path, certificate: Path) -> Iterator[tuple[str, LdapServer]]:
    """A directory that also listens with TLS: the ldaps URL, and the server."""
    directory = tmp_path / "ldap"
    server = start_ldap(directory, users=3)
    server.stop()
    config = directory / "slapd.conf"
    key = certificate.with_name("key.pem")
    config.write_text(f"TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n{config.read_text()}")
    url = f"ldaps://127.0.0.1:{free_port('127.0.0.1')}"
    command = ["slapd", "-d", "0", "-h", f"{server.url} {url}", "-f", str(config)]
    process = subprocess.Popen(command, env={"PATH": "/usr/sbin:/usr/bin"}, stderr=subprocess.DEVNULL)
    yield url, server
    process.terminate()
    process.wait(10)


async def found_within_start(source: LdapUsers) -> bool:
    """Whether u00001 is found; the directory may still be starting."""
    if not source.away:
        try:
            return await source.find([("u00001", REALM)]) == {("u00001", REALM): password_of("u00001")}
        except LdapUnavailable:
            pass
    await source.back.wait()
    return await source.find([("u00001", REALM)]) == {("u00001", REALM): password_of("u00001")}


@pytest.mark.parametrize("starttls", [False, True])
async def test_a21_a_verified_certificate_lets_the_bind_go_and_another_does_not(
    secure: tuple[str, LdapServer], certificate: Path, starttls: bool
) -> None:
    url, server = secure
    how: dict[str, Any] = {"url": server.url if starttls else url, "starttls": starttls, "insecure": False}
    async with users_of(server, ca_file=str(certificate), **how) as source, asyncio.timeout(20):
        assert await found_within_start(source)
    strangers = {"ca_file": ""}
    another_name = {"ca_file": str(certificate), "url": how["url"].replace("127.0.0.1", "localhost")}
    for wrong in (strangers, another_name):
        async with users_of(server, **{**how, **wrong}) as source:
            with pytest.raises(LdapUnavailable):
                await source.find([("u00001", REALM)])


async def test_a21_authorities_that_cannot_be_read_stop_the_start(ldap: LdapServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RAMAL_LDAP_CA_FILE"):
        LdapUsers(ldap_settings(ldap, ca_file=str(tmp_path / "nothing.pem")), DOMAINS)
