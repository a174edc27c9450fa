"""A real OpenLDAP as campuses have it: passwords are hashes, TLS before any bind, ppolicy notes when one changes."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from authsvc.config import LdapSettings
from ramal import backends
from ramal.backends import LdapServer, start_ldap
from ramal.processes import free_port, spawn, wait_ready
from runtime.config import Secret
from tests.kit.directory import add_entries, change_user, dn_of, remove_users
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
        person = {"cn": name, "sn": name, "userPassword": hashed(scheme, password)}
        add_entries(self.server, (dn_of(self.server, name), "inetOrgPerson", person))

    def change_password(self, name: str, password: str, scheme: str = "SSHA") -> None:
        """As an administrator does it."""
        change_user(self.server, name, userPassword=hashed(scheme, password))

    def change(self, name: str, **attributes: str) -> None:
        """The same, of anything else."""
        change_user(self.server, name, **attributes)

    def remove(self, name: str) -> None:
        """Takes a person away."""
        remove_users(self.server, name)

    def make_policy(self) -> None:
        """With passwords that age, ppolicy notes when one changes (`pwdChangedTime`)."""
        policy = {"cn": "policy", "pwdAttribute": "userPassword", "pwdMaxAge": 365 * 86400}
        add_entries(self.server, (f"cn=policy,{self.server.base}", ["applicationProcess", "pwdPolicy"], policy))


@contextmanager
def hashed_directory(directory: Path, *, ppolicy: bool = True, ends: float = 5.0) -> Iterator[HashedDirectory]:
    """One that the test may do with as it likes, without users of the backend's own but three.

    `ends`: days until its certificate has expired.
    """
    authority = Authority(directory, "authority")
    issued = authority.issue("ldap", ["127.0.0.1"], ends)
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
        if ppolicy:
            made.make_policy()
        yield made
    finally:
        child.kill()
