"""Why a phone cannot log in, for a terminal (see `console.logins`)."""

from rich.console import Console

from console.logins import HOURS, Failures
from ramal.wording import counted, listing, local_time

_WHY = {
    "wrong response": "wrong password, or another realm in the phone than the domain",
    "unknown user": "no source of users has this name, or the directory has disabled it",
    "user name with domain": "the phone's user name has the domain behind it: here it is the name alone",
    "no HA1": "the directory has only a hash of the password, or none for the algorithm: enrol",
    "not this user's AOR": "the password is right, but the address is somebody else's",
    "locked out": "too many wrong passwords from that address: it waits",
}


def show(console: Console, aor: str, found: list[Failures]) -> None:
    """What people read of it; where there is nothing, what that says."""
    if not found:
        console.print(
            f"No failed log-in in {HOURS} hours. If a phone of {aor} does not register (`ramal show {aor}`), it does"
            " not get as far as a password: address, port, firewall, or a domain that is not served.",
            soft_wrap=True,
        )
        return
    console.print(f"Failed log-ins of the last {HOURS} hours (at most 6 a minute from one address are recorded):")
    rows = [
        (
            local_time(row.last),
            counted(row.times, "time"),
            row.source,
            row.user if row.user == row.aor else f"{row.user} for {row.aor}",
            _WHY.get(row.reason, row.reason),
        )
        for row in found
    ]
    listing(console, ("Last", "How often", "From", "As", "Why"), rows)
