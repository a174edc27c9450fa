"""What the values of a directory's entry say: passwords, texts, telephone numbers."""

from collections.abc import Iterator

from authsvc.users.ldap_wire import Entry
from runtime.config import Domain
from sipcore.telephone import NumberRule, digits, spellings


def rule_of(domain: Domain) -> NumberRule:
    """How numbers are dialled there."""
    return NumberRule(domain.country, domain.area)


def written(number: str, rule: NumberRule) -> list[str]:
    """How a number may stand in a directory that leaves spaces and hyphens out of comparisons."""
    texts = spellings(number, rule)
    before = f"+{rule.country}{rule.area}"
    if rule.area and texts[0].startswith(before):
        local = texts[0][len(before) :]
        texts += [f"({rule.area}){local}", f"+{rule.country}({rule.area}){local}"]
    return texts


def numbers(entry: Entry, attribute: str) -> Iterator[str]:
    """The digits of each telephone number."""
    for value in entry.attributes.get(attribute.lower(), ()):
        if number := digits(value.decode("utf-8", "replace")):
            yield number


def text_of(entry: Entry, attribute: str) -> str:
    """Its first value; "" where there is none."""
    for value in entry.attributes.get(attribute.lower(), ()):
        return value.decode("utf-8", "replace").strip()
    return ""


def clear_text(entry: Entry, attribute: str) -> str:
    """The first value that is a password; `{SCHEME}…` is a hash of one (RFC 3112 section 2.3, RFC 2307 section 5.3)."""
    for value in entry.attributes.get(attribute.lower(), ()):
        if value and not (value[:1] == b"{" and b"}" in value):
            return value.decode("utf-8", "surrogateescape")
    return ""
