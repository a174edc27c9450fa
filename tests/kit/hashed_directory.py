"""A real OpenLDAP as campuses have it: passwords are hashes, TLS before any bind, ppolicy notes when one changes."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from authsvc.config import LdapSettings
from authsvc.users.ldap_connection import ldap3
from ramal import backends
from ramal.backends import LdapServer, start_ldap
from ramal.processes import free_port, spawn, wait_ready
from runtime.config import Secret
from tests.kit.secure import Authority

SCHEMES = ("SSHA", "CRYPT", "ARGON2")


def hashed(scheme: str, password: str) -> str:
    """As `slappasswd` writes it, the programme that OpenLDAP's own users set passwords by."""
    command = ["slappasswd", "-o", "module-path=/usr/lib/ldap", "-o", "module-load=argon2"]
    command += ["-c", "$6$%.16s"] if scheme == "CRYPT" else ["-h", f"{{{scheme}}}"]
    command += ["-s", password]
    env = {"PATH": "/usr/sbin:/usr/bin"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.strip()


class HashedDirectory:
    """The server, and what a test does in it as its administrator."""

    def __init__(self, server: LdapServer, url: str, authority: Path) -> None:
        self.server, self.url, self.authority = server, url, authority

    def settings(self, **changed: Any) -> LdapSettings:
        """How a service reaches it: `ldaps://`, the certificate verified."""
        values: dict[str, Any] = {
            "url": self.url,
            "base": self.server.base,
            "bind_dn": self.server.bind_dn,
            "bind_password": Secret(self.server.bind_password),
            "ca_file": str(self.authority),
            "timeout": 5.0,
            **changed,
        }
        return LdapSettings(**values)

    def variables(self) -> dict[str, str]:
        """The same as RAMAL_LDAP_… variables."""
        return {
            "RAMAL_LDAP_URL": self.url,
            "RAMAL_LDAP_BASE": self.server.base,
            "RAMAL_LDAP_BIND_DN": self.server.bind_dn,
            "RAMAL_LDAP_BIND_PASSWORD": self.server.bind_password,
            "RAMAL_LDAP_CA_FILE": str(self.authority),
            "RAMAL_LDAP_TIMEOUT": "5",
        }

    def add(self, name: str, password: str, scheme: str = "SSHA") -> None:
        """A person whose password is kept as that hash."""
        with self._administrator() as connection:
            attributes = {"cn": name, "sn": name, "userPassword": hashed(scheme, password)}
            connection.add(self._dn(name), "inetOrgPerson", attributes)

    def change(self, name: str, attributes: Mapping[str, str]) -> None:
        """Replaces attributes of a person."""
        with self._administrator() as connection:
            changes = {key: [(ldap3.MODIFY_REPLACE, [value])] for key, value in attributes.items()}
            connection.modify(self._dn(name), changes)

    def remove(self, name: str) -> None:
        """Takes a person away."""
        with self._administrator() as connection:
            connection.delete(self._dn(name))

    def make_policy(self) -> None:
        """With passwords that age, ppolicy notes when a password changes (`pwdChangedTime`)."""
        with self._administrator() as connection:
            attributes = {"cn": "policy", "pwdAttribute": "userPassword", "pwdMaxAge": 365 * 86400}
            connection.add(f"cn=policy,{self.server.base}", ["applicationProcess", "pwdPolicy"], attributes)

    def _dn(self, name: str) -> str:
        return f"uid={name},ou=Users,{self.server.base}"

    @contextmanager
    def _administrator(self) -> Iterator[Any]:
        server = ldap3.Server(self.server.url, get_info=ldap3.NONE)
        admin = (self.server.bind_dn, self.server.bind_password)
        connection = ldap3.Connection(server, *admin, auto_bind=True, raise_exceptions=True)
        try:
            yield connection
        finally:
            connection.unbind()


@contextmanager
def hashed_directory(directory: Path, *, ppolicy: bool = True) -> Iterator[HashedDirectory]:
    """One that the test may do with as it likes, without users of the backend's own but three."""
    authority = Authority(directory, "authority")
    issued = authority.issue("ldap", ["127.0.0.1"])
    server = start_ldap(directory / "ldap", users=3)
    server.stop()
    config = directory / "ldap" / "slapd.conf"
    tls = f"TLSCertificateFile {issued.certificate}\nTLSCertificateKeyFile {issued.key}\n"
    text = config.read_text().replace(
        "moduleload back_mdb\n", "moduleload back_mdb\nmoduleload argon2\nmoduleload ppolicy\n"
    )
    config.write_text(tls + text + f"overlay ppolicy\nppolicy_default cn=policy,{server.base}\n" * ppolicy)
    url = f"ldaps://127.0.0.1:{free_port('127.0.0.1')}"
    command = ["/usr/sbin/slapd", "-d", "0", "-h", f"{server.url} {url}", "-f", str(config)]
    child = spawn("ldap", command, directory / "ldap" / "tls.log", cwd=directory)
    try:
        made = HashedDirectory(server, url, authority.file)
        wait_ready(child, lambda: backends._ldap_answers(int(server.url.rpartition(":")[2])), 30)
        made.make_policy()
        yield made
    finally:
        child.kill()
