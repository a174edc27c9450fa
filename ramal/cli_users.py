"""The commands about users and their aliases."""

import json
import sys
from typing import Annotated

import typer

from authsvc.users.enrolled import Enrolled
from console.logins import Failures, failures
from ramal import logins, users, wording
from ramal.asking import AsJson, Data, Domain, console, data, example, run, system
from ramal.system import System
from ramal.users import Directory, Listed
from runtime.errors import ConfigError

user_app = typer.Typer(
    help="Users: who may register.", no_args_is_help=True, epilog=example("ramal user add carol@example.test")
)
alias_app = typer.Typer(
    help="Aliases: other names by which a user is called.",
    no_args_is_help=True,
    epilog=example("ramal alias add reception alice"),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="[bold]carol[/bold] or [bold]carol@example.test[/bold]")]


NO_LOG_IN = {"disabled": "disabled in the directory", "absent": "not in the directory"}
"""Why phones of an enrolled user cannot log in, by what the directory says."""
LOGS_IN = {"generated": "a password of our making", "directory": "the directory's password"}
"""What phones log in with, by the kind of an enrolment."""


def named(text: str, domain: str | None, system: System, *, new: bool = False) -> tuple[str, str]:
    """Name and domain of a user of ours, or of an alias; `new`: one that is to be made."""
    try:
        name, realm = wording.name_and_domain(text, domain, list(system.common.served()))
        return (wording.new_name(name) if new else name), realm
    except ValueError as error:
        raise ConfigError(f"NAME: {error}") from error


@user_app.command("add", epilog=example("echo secret | ramal user add carol@example.test --password-stdin"))
def user_add_command(
    name: Name,
    domain: Domain = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")] = False,
    data_: Data = None,
) -> None:
    """A new user, or a new password for one; only digests (HA1) of the password are stored."""
    where = data(data_)
    asked = system(where)
    name, realm = named(name, domain, asked, new=True)
    run(users.add(asked, where, name, realm, users.password(password_stdin)))
    console.print(f"{name}@{realm} may register.", soft_wrap=True)
    for alias, owner in run(users.aliases(asked, where)):
        if alias == (name, realm) != owner:
            print(f"ramal: {name}@{realm} was an alias of {'@'.join(owner)}; calls ring here now", file=sys.stderr)


@user_app.command("list", epilog=example("ramal user list --data ./ramal-data"))
def user_list_command(domain: Domain = None, as_json: AsJson = False, data_: Data = None) -> None:
    """All users of our own, one a line, and those of LDAP who have enrolled: since when, and what phones log in with.

    Of these LDAP is asked whether their accounts are in use.
    """
    where = data(data_)
    asked = system(where)
    if domain is not None:
        named("anybody", domain, asked)
    found = [each for each in run(users.listed(asked, where)) if each.domain == (domain or each.domain).lower()]
    if as_json:
        told = [
            {"name": each.name, "domain": each.domain, "ours": each.ours, **_enrolment(each.enrolled, each.directory)}
            for each in found
        ]
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for each in found:
        print(f"{each.name}@{each.domain}{f'  {_in_short(each)}' if each.enrolled else ''}")
    if users.in_ldap(asked.sources):
        print("ramal: users of LDAP stand here if they have enrolled; the others only LDAP can list", file=sys.stderr)
    elif not found:
        print("ramal: there are no users; one more: ramal user add NAME", file=sys.stderr)


def _enrolment(row: Enrolled | None, directory: Directory | None) -> dict[str, str | None]:
    """An enrolment as JSON; every field is null where there is none, and of the directory where it is not asked."""
    return {
        "enrolled": wording.local_time(row.enrolled_at) if row else None,
        "phone_password": row.password if row else None,
        "retired": wording.local_time(row.retired_at) if row and row.retired_at else None,
        "retired_for": (row.retired_for or None) if row else None,
        "key": row.key_id if row else None,
        "directory": directory.state if directory else None,
        "disabled_by": (directory.account.disabled or None) if directory and directory.account else None,
    }


def _in_short(user: Listed) -> str:
    """An enrolment in some words."""
    row = user.enrolled
    if row is None:
        return ""
    since = f"enrolled {wording.local_time(row.enrolled_at)}"
    if row.retired_at:
        return f"{since}, over since {wording.local_time(row.retired_at)}: {row.retired_for}"
    if user.directory and user.directory.state in NO_LOG_IN and not user.ours:
        return f"{since}, {NO_LOG_IN[user.directory.state]}"
    return f"{since}: {LOGS_IN[row.password]}"


@user_app.command("show", epilog=example("ramal user show alice --json"))
def user_show_command(name: Name, domain: Domain = None, as_json: AsJson = False, data_: Data = None) -> None:
    """Why a phone cannot log in: where the user comes from, whether he has enrolled, whether the directory has disabled
    him, and failed log-ins of a day."""
    where = data(data_)
    asked = system(where)
    name, realm = named(name, domain, asked)
    found = run(users.known(asked, where, name, realm))
    row = found.enrolled
    directory = found.directory
    in_ldap = directory is not None and directory.account is not None
    there = (("users file", found.in_file), ("subscriber", found.in_table), ("LDAP", in_ldap))
    sources = [text for text, is_there in there if is_there]
    if as_json:
        failed = [
            each._asdict() | {"last": wording.local_time(each.last)}
            for each in run(_failures(asked, f"{name}@{realm}"))
        ]
        told = {
            "name": name,
            "domain": realm,
            "sources": sources,
            **_enrolment(row, directory),
            "failed_logins": failed,
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    ours = found.in_file or found.in_table
    console.print(f"{name}@{realm}: {', '.join(sources) or _nowhere(directory)}", soft_wrap=True)
    if directory and not ours:
        _show_directory(directory)
    if row or not (ours or (directory and directory.state == "absent")):
        _show_enrolment(row, counts=ours or directory is None or directory.state not in NO_LOG_IN)
    logins.show(console, f"{name}@{realm}", run(_failures(asked, f"{name}@{realm}")))


async def _failures(asked: System, aor: str) -> list[Failures]:
    async with asked.log() as log:
        return await failures(log, aor)


def _nowhere(directory: Directory | None) -> str:
    if directory and directory.state == "absent":
        return "not among our own users, nor in the directory (as RAMAL_LDAP_BASE and RAMAL_LDAP_FILTER have it)"
    return "not among our own users (in LDAP, if anywhere)"


def _show_directory(directory: Directory) -> None:
    """Of a user who is in the directory alone, if anywhere."""
    if directory.state == "unknown":
        console.print(f"Whether the directory has the account in use is unknown: {directory.away}.", soft_wrap=True)
    elif directory.account and directory.account.disabled:
        told = f"The directory has disabled the account ({directory.account.disabled}): phones cannot log in."
        console.print(told, soft_wrap=True)


def _show_enrolment(row: Enrolled | None, *, counts: bool) -> None:
    """`counts`: whether the directory leaves it in force, as far as that is known."""
    if row is None:
        console.print("Has not enrolled. A user of LDAP does so on the console's page /enroll, or by `ramal enroll`.")
        return
    since = wording.local_time(row.enrolled_at)
    if row.retired_at:
        console.print(
            f"Enrolled {since}, over since {wording.local_time(row.retired_at)}: {row.retired_for}."
            " Phones cannot log in until the user enrols again, on the console's page /enroll or by `ramal enroll`.",
            soft_wrap=True,
        )
        return
    logs_in = f"phones log in with {LOGS_IN[row.password]}"
    if not counts:
        logs_in = f"{logs_in} once the directory has the account in use"
    console.print(f"Enrolled {since}: {logs_in}. Sealed by {row.key_id}.", soft_wrap=True)


@user_app.command("reset", epilog=example("ramal user reset carol@example.test"))
def user_reset_command(name: Name, domain: Domain = None, data_: Data = None) -> None:
    """A new password of our making for a user of ours (not in LDAP), shown once."""
    where = data(data_)
    asked = system(where)
    name, realm = named(name, domain, asked)
    if (name, realm) not in run(users.everyone(asked, where)):
        raise ConfigError(f"NAME: there is no user {name}@{realm}")
    secret = users.readable_password()
    run(users.add(asked, where, name, realm, secret))
    console.print(f"User {name}@{realm}   password {secret}", soft_wrap=True, markup=False)


@user_app.command("remove", epilog=example("ramal user remove carol@example.test"))
def user_remove_command(name: Name, domain: Domain = None, data_: Data = None) -> None:
    """Takes a user away; what is registered ends within five minutes, by `ramal remove` at once."""
    where = data(data_)
    asked = system(where)
    name, realm = named(name, domain, asked)
    if not run(users.remove(asked, where, name, realm)):
        raise ConfigError(f"NAME: there is no user {name}@{realm}")
    console.print(f"{name}@{realm} may not register any more; what is registered ends within minutes.", soft_wrap=True)


@alias_app.command("add", epilog=example("ramal alias add reception@example.test alice@example.test"))
def alias_add_command(
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="[bold]reception[/bold], or 4833812800")],
    name: Name,
    domain: Domain = None,
    data_: Data = None,
) -> None:
    """Lets calls to an alias ring at a user, and the user call as it; an alias has one user."""
    where = data(data_)
    asked = system(where)
    called, user = named(alias, domain, asked, new=True), named(name, domain, asked)
    known = run(users.everyone(asked, where))
    if called == user:
        raise ConfigError(f"ALIAS: {'@'.join(user)} is the user's own name; an alias is another one")
    if called in known:
        raise ConfigError(f"ALIAS: {'@'.join(called)} is a user: calls to that name ring there, whatever an alias says")
    if user not in known:
        rings = "calls reach him if LDAP has him" if users.in_ldap(asked.sources) else "calls to the alias reach nobody"
        print(f"ramal: {'@'.join(user)} is in no table here: {rings}", file=sys.stderr)
    run(users.add_alias(asked, called, user))
    console.print(f"{'@'.join(called)} is {'@'.join(user)}.", soft_wrap=True)


@alias_app.command("list", epilog=example("ramal alias list"))
def alias_list_command(as_json: AsJson = False, data_: Data = None) -> None:
    """All aliases and whose they are (not telephone numbers in LDAP)."""
    where = data(data_)
    found = [("@".join(alias), "@".join(user)) for alias, user in run(users.aliases(system(where), where))]
    if as_json:
        print(json.dumps([{"alias": alias, "user": user} for alias, user in found], indent=2, ensure_ascii=False))
    elif found:
        wording.listing(console, ("Alias", "User"), found)
    else:
        console.print("There are no aliases.")


@alias_app.command("remove", epilog=example("ramal alias remove reception@example.test"))
def alias_remove_command(
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="reception or reception@example.test")],
    domain: Domain = None,
    data_: Data = None,
) -> None:
    """Takes an alias away."""
    asked = system(data(data_))
    called = named(alias, domain, asked)
    if not run(users.remove_alias(asked, called)):
        raise ConfigError(f"ALIAS: there is no alias {'@'.join(called)}")
    console.print(f"{'@'.join(called)} is nobody's any more.", soft_wrap=True)
