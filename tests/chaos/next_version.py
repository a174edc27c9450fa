"""`ramal` as its next version might be: `python tests/chaos/next_version.py registrar`.

It knows a field of a binding (`x_proof`) and one of an AOR's state (`x_revision`) that this version does not know;
and with RAMAL_NEXT_KIND=true it has another word for a refresh.
"""

import enum
import os
import sys

import msgspec

from events import registrations

if os.environ.get("RAMAL_NEXT_KIND"):
    kinds = {kind.name: kind.value for kind in registrations.Kind} | {"REFRESHED": "renewed"}
    registrations.Kind = enum.StrEnum("Kind", kinds)  # type: ignore[misc]

    class Change(msgspec.Struct, frozen=True):
        """With the kinds of this version."""

        kind: registrations.Kind
        id: int
        contact: str

    registrations.Change = Change  # type: ignore[misc]
else:
    Change = registrations.Change  # type: ignore[misc]


class Binding(registrations.Binding, frozen=True, omit_defaults=True):
    """With a field more."""

    x_proof: str = msgspec.field(default_factory=lambda: "proven")


class AorState(registrations.AorState, frozen=True, omit_defaults=True):
    """With a field more."""

    bindings: tuple[Binding, ...] = ()
    x_revision: int = msgspec.field(default_factory=lambda: 7)


class BindingsRecorded(
    registrations.BindingsRecorded, frozen=True, omit_defaults=True, tag="ramal.BindingsRecorded", tag_field="type"
):
    """Of these."""

    changes: tuple[Change, ...]
    state: AorState


registrations.Binding = Binding  # type: ignore[misc]
registrations.AorState = AorState  # type: ignore[misc]
registrations.BindingsRecorded = BindingsRecorded  # type: ignore[misc]
registrations.RegistrationEvent = BindingsRecorded | registrations.Claimed

if __name__ == "__main__":
    from ramal.cli import main

    sys.exit(main())
