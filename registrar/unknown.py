"""Fields of a state that this version does not know: a newer one wrote them, and they must outlive a roll-back.

A decision makes a state of what this version knows. What it does not know goes on beside it: a binding's fields as
long as the binding, the AOR's as long as its state, which is then never forgotten. So a version may add a field if a
reader that passes over it is still right; what needs more must be a new type, which stops older readers.

Which states have such fields is found when a partition is restored; a decision about the others costs nothing more.
"""

from collections.abc import Mapping
from typing import Any

from events.registrations import AorState, Binding, Gone, Seen
from events.wire import Decoder, encode

_STATE = frozenset(AorState.__struct_encode_fields__)
_BINDING = frozenset(Binding.__struct_encode_fields__)
_LISTS = {"seen": len(Seen.__struct_fields__), "gone": len(Gone.__struct_fields__)}
"""Of entries that are arrays, how many elements are known."""

_decode: Decoder[dict[str, Any]] = Decoder(dict[str, Any])


def has_unknown(encoded: bytes, state: AorState) -> bool:
    """Whether a state, as it is encoded, says more than `state`, which was decoded from it. Raises Poisoned."""
    own = encode(state)
    return encoded != own and carry(encoded, own) != own


def carry(old: bytes, new: bytes) -> bytes:
    """The state `new`, encoded by this version, with what is unknown here of the one before it.

    Raises Poisoned for what `has_unknown` has not seen.
    """
    before, after = _decode(old), _decode(new)
    _carry_fields(before, after, _STATE)
    bindings = {binding["id"]: binding for binding in before.get("bindings", ())}
    for binding in after.get("bindings", ()):
        if binding["id"] in bindings:
            _carry_fields(bindings[binding["id"]], binding, _BINDING)
    for name, known in _LISTS.items():
        tails = {tuple(entry[:known]): entry[known:] for entry in before.get(name, ())}
        for entry in after.get(name, ()):
            entry += tails.get(tuple(entry), ())
    return encode(after)


def _carry_fields(before: Mapping[str, Any], after: dict[str, Any], known: frozenset[str]) -> None:
    after.update({field: value for field, value in before.items() if field not in known})
