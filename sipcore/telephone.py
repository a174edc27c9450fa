"""Telephone numbers: the one spelling of those that RFC 3966 section 5 takes for equal, and a domain's dialling rule.

A number is `+554833812800` (global) or what is dialled within a domain: `2800`, `*11`.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

# global-number-digits = "+" *phonedigit DIGIT *phonedigit; local-number-digits without the letters of HEXDIG, which
# are no digits but in a tel URI: `abe` is a user. Wider: the space, as people and directories write it.
_NUMBER: Final = re.compile(r"[ ]*+(?:\+[0-9\-.() ]*[0-9][0-9\-.() ]*|[0-9*#(][0-9*#\-.() ]*)")
# visual-separator = "-" / "." / "(" / ")"
_SEPARATORS: Final = str.maketrans("", "", "-.() ")
_PARAMETER: Final = re.compile(r"([A-Za-z0-9\-]++)(?:=([^;=]++))?")
# domainname = *( domainlabel "." ) toplabel [ "." ]
_DOMAIN: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?\.)*[A-Za-z](?:[A-Za-z0-9\-]*[A-Za-z0-9])?\.?"
)
_LONGEST: Final = 64
_SUBSCRIBER: Final = 6
"""The fewest digits behind an area code; what has fewer is an extension that happens to begin like one."""


class NumberRule(NamedTuple):
    """How numbers without `+` are meant where they are dialled."""

    country: str = ""
    """Country code: `55`."""
    area: str = ""
    """Area code: `48`; needs the country's."""


NO_RULE: Final = NumberRule()


def digits(text: str) -> str | None:
    """The number that an unescaped text spells (`+55 48 3381-2800`), without separators; None if it is no number."""
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    return text.translate(_SEPARATORS) or None


def dialled(text: str, rule: NumberRule = NO_RULE) -> str | None:
    """The number of a user part, or of what follows `tel:`, as sent; None if it is none (see `subscriber`)."""
    if ";" in text:
        found = subscriber(text, rule)
        return found.number if found else None
    return digits(unquote(text))


def normal(number: str, rule: NumberRule = NO_RULE) -> str:
    """The one spelling of `digits` by a domain's rule: global if it can be told, else unchanged.

    With country 55 and area 48, `4833812800` and `554833812800` are `+554833812800`; `2800` is an extension.
    """
    country, area = rule
    if not country or not number.isdecimal():
        return number
    if area and number.startswith(area) and len(number) >= len(area) + _SUBSCRIBER:
        return f"+{country}{number}"
    if number.startswith(country + area) and len(number) >= len(country) + len(area) + _SUBSCRIBER:
        return f"+{number}"
    return number


def spellings(number: str, rule: NumberRule = NO_RULE) -> list[str]:
    """All that the rule takes for the same number, the one spelling first; two of them never mean two numbers."""
    first = normal(number, rule)
    country, area = rule
    if not country or not first.startswith(f"+{country}"):
        return [first]
    national = first[1 + len(country) :]
    others = [first[1:], national] if area and national.startswith(area) else [first[1:]]
    return [first, *(other for other in others if normal(other, rule) == first)]


class Subscriber(NamedTuple):
    """What a tel URI names."""

    number: str
    """Without separators."""
    domain: str | None
    """The domain of its phone-context in lower case; None for a global number, and for one of this place."""


def subscriber(opaque: str, rule: NumberRule = NO_RULE) -> Subscriber | None:
    """The number and context of a tel URI's part behind `tel:`; None if it is malformed or not of this place.

    A local number without a phone-context, which section 5.1.5 does not allow and phones send, is one of this place,
    as the user part of a sip URI is. A phone-context of digits is no prefix: only the rule's own country, or country
    and area, is understood. So are no mandatory (`m-`) parameters (section 5.4).
    """
    spelled, *parts = opaque.split(";")
    number = digits(unquote(spelled))
    found: dict[str, str] = {}
    for part in parts:
        match = _PARAMETER.fullmatch(part)
        if match is None or match[1].lower() in found or match[1].lower().startswith("m-"):
            return None
        found[match[1].lower()] = unquote(match[2] or "")
    if number is None or number.startswith("+"):
        return None if number is None else Subscriber(number, None)
    context = found.get("phone-context")
    if context is None:
        return Subscriber(number, None)
    if context.startswith("+"):
        here = rule.country and digits(context) in (f"+{rule.country}", f"+{rule.country}{rule.area}")
        return Subscriber(number, None) if here else None
    return Subscriber(number, context.rstrip(".").lower()) if _DOMAIN.fullmatch(context) else None
