"""Somebody is to be forgotten: told on the logs of what happened, so that whoever keeps any of it forgets him too.

The log is the truth, so an erasure that is not in it would be undone by the next replay. A reader that keeps
something of a person, or of calls with him, removes it when it comes to this record, and only what came before it.
"""

import msgspec

from events.calls import Millis
from events.personal import Person

FORGOTTEN = "forgotten@anonymous.invalid"
"""Stands in tables and records where a person was who is forgotten. The domain is RFC 3323's: it is nobody's."""


class PersonForgotten(msgspec.Struct, frozen=True, tag="ramal.PersonForgotten", tag_field="type"):
    """A person is to be forgotten; on every partition of `calls`, then of `cdrs`, and on `audit`."""

    person: Person
    """AOR, or whatever else named somebody: a URI of another domain, a number."""
    operator: Person
    at: Millis
