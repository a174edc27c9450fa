"""Telephone numbers by the domains' settings (PURE; the numbers themselves are in `sipcore.telephone`)."""

from collections.abc import Callable, Collection, Mapping

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


def aors(rules: Mapping[str, NumberRule], served: Collection[str]) -> Callable[[str, str], str | None]:
    """By what follows `tel:` and the caller's domain, the canonical AOR by which the number is looked up.

    That is one of the caller's domain, or of the served domain that a phone-context names. None for what is no
    number, or one of somebody else's plan.
    """

    def aor(opaque: str, domain: str) -> str | None:
        found = subscriber(opaque, rules.get(domain, NO_RULE))
        if found is None or not (found.domain is None or found.domain in served):
            return None
        return f"{canonical_escapes(found.number)}@{found.domain or domain}"

    return aor
