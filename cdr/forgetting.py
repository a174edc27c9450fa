"""Who a call was with is taken out of what is known of it; that there was one stays. PURE.

What is hidden once stays hidden: a state says so itself, by FORGOTTEN where the person stood, so what arrives later
of that side is hidden as it comes.
"""

from typing import Any, NamedTuple

import msgspec

from cdr.state import State
from events.people import FORGOTTEN
from events.pseudonyms import person_of


class Sides(NamedTuple):
    """Whose part in a call is hidden."""

    caller: bool = False
    callee: bool = False
    target: bool = False
    """Of a transfer."""


def sides_of(state: State, person: str) -> Sides:
    """As whom somebody (`events.pseudonyms.person_of`) was in a call."""
    begin, ends = state.begin, state.ends.values()
    callers = [end.caller_uri for end in ends]
    callees = [end.callee_uri for end in ends]
    if begin is not None:
        callers += (begin.caller, begin.asserted, begin.from_uri)
        callees += (begin.callee, begin.to_uri, begin.dialled)
    return Sides(
        any(person_of(text) == person for text in callers),
        any(person_of(text) == person for text in callees),
        state.transferred is not None and person_of(state.transferred[1]) == person,
    )


def is_hidden(state: State) -> bool:
    """Whether anybody's part is. What a phone sends is a URI, so it cannot say FORGOTTEN."""
    begin = state.begin
    if begin is not None:
        return FORGOTTEN in (begin.caller, begin.dialled)
    return any(FORGOTTEN in (end.caller_uri, end.callee_uri) for end in state.ends.values())


def hidden_sides(state: State) -> Sides:
    """Whose part is hidden already."""
    begin = state.begin
    if begin is None:
        ends = state.ends.values()
        return Sides(any(end.caller_uri == FORGOTTEN for end in ends), any(e.callee_uri == FORGOTTEN for e in ends))
    return Sides(begin.caller == FORGOTTEN, begin.dialled == FORGOTTEN)


def names_in(state: State, person: str) -> set[str]:
    """By which other names somebody stood in a call: an alias or a number that was dialled, for one."""
    begin = state.begin
    if begin is None:
        return set()
    found: set[str] = set()
    if person_of(begin.caller) == person:
        found |= {person_of(begin.asserted), person_of(begin.from_uri)}
    if person_of(begin.callee) == person:
        found |= {person_of(begin.to_uri), person_of(begin.dialled)}
    return found - {"", person}


def hide(state: State, sides: Sides) -> State:
    """The state without these; the same object if they are hidden."""
    begin = state.begin
    if begin is not None and sides.caller:
        begin = msgspec.structs.replace(begin, caller=FORGOTTEN, asserted="", from_uri=FORGOTTEN, source="", agent="")
    if begin is not None and sides.callee:
        callee = FORGOTTEN if begin.callee else ""
        begin = msgspec.structs.replace(begin, callee=callee, to_uri=FORGOTTEN, dialled=FORGOTTEN)
    changes: dict[str, Any] = {"begin": begin}
    if sides.callee:
        changes["answers"] = {
            tag: msgspec.structs.replace(answer, contact="", agent="") for tag, answer in state.answers.items()
        }
    if sides.caller or sides.callee:
        changes["ends"] = {
            tag: msgspec.structs.replace(
                end,
                caller_uri=FORGOTTEN if sides.caller else end.caller_uri,
                callee_uri=FORGOTTEN if sides.callee else end.callee_uri,
            )
            for tag, end in state.ends.items()
        }
    if sides.target and state.transferred is not None:
        changes["transferred"] = (state.transferred[0], FORGOTTEN)
    after = msgspec.structs.replace(state, **changes)
    return state if after == state else after
