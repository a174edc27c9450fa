"""Telephone numbers by the domains' settings (PURE; the numbers themselves are in `sipcore.telephone`)."""

from collections.abc import Callable, Mapping

from runtime.config import Domain
from runtime.errors import ConfigError
from sipcore.telephone import NO_RULE, NumberRule, subscriber
from sipcore.uri import canonical_escapes


def rules_of(domains: Mapping[str, Domain]) -> dict[str, NumberRule]:
    """The dialling rules of domains that have one; raises ConfigError."""
    rules = {}
    for name, domain in domains.items():
        for key, code in (("country", domain.country), ("area", domain.area)):
            if code and not (code.isascii() and code.isdecimal()):
                raise ConfigError(f"domains.{name}.{key}: {code!r} is not digits")
        if domain.area and not domain.country:
            raise ConfigError(f"domains.{name}.area: needs country")
        if domain.country:
            rules[name] = NumberRule(domain.country, domain.area)
    return rules


def user_parts(rules: Mapping[str, NumberRule]) -> Callable[[str, str], str | None]:
    """By what follows `tel:` and a domain, the canonical user part by which the number is looked up there.

    None for what is no number, or one of another domain's plan.
    """

    def user_part(opaque: str, domain: str) -> str | None:
        found = subscriber(opaque, rules.get(domain, NO_RULE))
        if found is None or found.domain not in (None, domain):
            return None
        return canonical_escapes(found.number)

    return user_part
