"""Audit: who failed to be whom, and what an operator did. Never a secret, a nonce or a response."""

import msgspec

from events.personal import Person, Place


class AuthenticationFailed(msgspec.Struct, frozen=True, tag="ramal.AuthenticationFailed", tag_field="type"):
    """Credentials were wrong, or right for somebody else's AOR."""

    user: Person
    """The digest user, `name@realm`."""
    aor: Person
    source: Place
    """IP address."""
    reason: str
    """`unknown user`, `user name with domain` (and unknown), `wrong response`, `no HA1`, `not this user's AOR`, `locked
    out`."""


class ContactsRemoved(msgspec.Struct, frozen=True, tag="ramal.ContactsRemoved", tag_field="type"):
    """An operator asked for bindings to be removed."""

    operator: Person
    aor: Person
    contact: Place | None
    kicked: bool = False
    """Whether their connections were to be closed, too."""


class SessionsEnded(msgspec.Struct, frozen=True, tag="ramal.SessionsEnded", tag_field="type"):
    """An operator logged another, or himself, out everywhere."""

    operator: Person
    of: Person
    """Whose sessions these were."""
    sessions: int


class EnrolmentTried(msgspec.Struct, frozen=True, tag="ramal.EnrolmentTried", tag_field="type"):
    """Somebody gave a password of the directory, to have a phone log in."""

    user: Person
    """The name in the directory; empty where it has no such entry, for people type passwords into the wrong field."""
    source: Place
    """IP address; empty for the command `ramal enroll`."""
    operator: Person
    """Who gave that command; empty on the page."""
    outcome: str
    """`enrolled`, `wrong password`, `locked out`."""


AuditEvent = AuthenticationFailed | ContactsRemoved | EnrolmentTried | SessionsEnded
