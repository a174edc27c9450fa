"""Changes in a directory of a test, as its administrator makes them."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from authsvc.config import LdapSettings
from ramal.backends import LdapServer
from runtime.config import Secret

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # ldap3 2.9.1 with pyasn1 0.6
    import ldap3

BASE = "dc=example,dc=test"
GROUPS = f"ou=Groups,{BASE}"

Entry = tuple[str, str | list[str], dict[str, Any]]
"""DN, object classes, attributes."""


def ldap_settings(server: LdapServer, **changed: Any) -> LdapSettings:
    """authsvc's, in clear text, but for what is changed."""
    values: dict[str, Any] = {
        "url": server.url,
        "base": server.base,
        "bind_dn": server.bind_dn,
        "bind_password": Secret(server.bind_password),
        "insecure": True,
        **changed,
    }
    return LdapSettings(**values)


@contextlib.contextmanager
def _administrator(server: LdapServer) -> Iterator[Any]:
    connection = ldap3.Connection(
        ldap3.Server(server.url, get_info=ldap3.NONE), server.bind_dn, server.bind_password, auto_bind=True
    )
    try:
        yield connection
        assert connection.result["result"] == 0, connection.result
    finally:
        connection.unbind()


def add_entries(server: LdapServer, *entries: Entry) -> None:
    """Adds these, in order."""
    with _administrator(server) as connection:
        for dn, kind, attributes in entries:
            connection.add(dn, kind, attributes)
            assert connection.result["result"] == 0, connection.result


def change_entry(server: LdapServer, dn: str, **attributes: Any) -> None:
    """Gives an entry these values instead of those it had."""
    with _administrator(server) as connection:
        connection.modify(dn, {name: [(ldap3.MODIFY_REPLACE, values)] for name, values in attributes.items()})


def remove_member(server: LdapServer, group: str, attribute: str, member: str) -> None:
    """Takes one value away."""
    with _administrator(server) as connection:
        connection.modify(group, {attribute: [(ldap3.MODIFY_DELETE, [member])]})


def dn_of(server: LdapServer, name: str) -> str:
    """Of a user."""
    return f"uid={name},ou=Users,{server.base}"


def add_users(server: LdapServer, *names: str) -> None:
    """Adds users with the passwords that the others have."""
    people = {name: {"cn": name, "sn": name, "userPassword": f"secret-{name}"} for name in names}
    add_entries(server, *((dn_of(server, name), "inetOrgPerson", people[name]) for name in names))


def change_user(server: LdapServer, name: str, **attributes: Any) -> None:
    """Gives a user these values instead of those he had."""
    change_entry(server, dn_of(server, name), **attributes)


def remove_users(server: LdapServer, *names: str) -> None:
    """Removes users."""
    with _administrator(server) as connection:
        for name in names:
            connection.delete(dn_of(server, name))
            assert connection.result["result"] == 0, connection.result


def rename_user(server: LdapServer, name: str, new: str) -> None:
    """Gives a user another uid."""
    with _administrator(server) as connection:
        connection.modify_dn(dn_of(server, name), f"uid={new}")
