"""The commands about enrolment: users of a directory whose phones cannot log in by its hashes, and the keys at rest."""

import getpass
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from authsvc.enrolment import Enrolment, LockedOut, Who, WrongPassword, phone_uri
from authsvc.users.enrolled import used_keys
from authsvc.users.sealing import Keyring
from ramal import enrolling, operations
from ramal.asking import AsJson, Data, Domain, console, data, example, run, system
from ramal.cli_users import Name, named
from ramal.system import System
from runtime.errors import ConfigError

app = typer.Typer()
keys_app = typer.Typer(
    help="The keys that seal what enrolment stores.", no_args_is_help=True, epilog=example("ramal keys list")
)
TRIES = 3
WAIT_SECONDS = 2.0
"""After a wrong password, and twice as long after the next."""


@app.command("enroll", epilog=example("ramal enroll alice; echo secret | ramal enroll alice --password-file -"))
def enroll_command(
    user: Name,
    domain: Domain = None,
    phone_password: Annotated[
        bool,
        typer.Option("--phone-password", help="Make one for phones, shown once, and keep the directory's out of them."),
    ] = False,
    password_file: Annotated[
        str,
        typer.Option("--password-file", metavar="FILE", help="Read the directory's password there; - is stdin."),
    ] = "",
    as_json: AsJson = False,
    data_: Data = None,
) -> None:
    """Lets phones of a user of LDAP log in, whatever hash of the password the directory holds.

    The password is proved once by a bind; then digests of it (or of a phone password) for every domain and algorithm
    are stored, sealed. It is typed, or read from a file; there is no option for it, which others could see. A user
    can do the same without you, on the console's page /enroll.
    """
    asked = system(data(data_))
    name, _ = named(user, domain, asked)
    made = run(_enroll(asked, name, password_file, phone_password))
    if isinstance(made, str):
        print(f"ramal: {made}", file=sys.stderr)
        raise typer.Exit(1)
    if as_json:
        told = {"user": name, "domains": made.domains, "phone_password": made.phone_password or None}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    aors = " and ".join(f"{name}@{each}" for each in made.domains)
    if not made.phone_password:
        console.print(f"Phones may log in as {aors}, with the directory's password.", soft_wrap=True)
        return
    console.print(f"Phones may log in as {aors}, with this password, which is not shown again:\n", soft_wrap=True)
    console.print(f"    {made.phone_password}\n", markup=False)
    if sys.stdout.isatty():
        import segno  # not while the module is loaded, which every command does

        segno.make(phone_uri(name, made.domains[0], made.phone_password), error="m").terminal(compact=True)
        console.print("The picture is a SIP URI with the password in it; a phone's camera reads it for you to paste.")


async def _enroll(asked: System, name: str, password_file: str, phone_password: bool) -> Enrolment | str:
    """What somebody has now, or why he has not."""
    tries = 1 if password_file or not sys.stdin.isatty() else TRIES
    async with enrolling.enroller(asked) as enroller:
        for attempt in range(tries):
            found = await enroller.attempt(
                name, _password(name, password_file), Who(operator=operations.operator()), generated=phone_password
            )
            if isinstance(found, Enrolment):
                return found
            if isinstance(found, LockedOut):
                return f"too many wrong passwords; try again in {found.seconds} s"
            assert isinstance(found, WrongPassword)  # noqa: S101  # the third of three
            time.sleep(WAIT_SECONDS * 2**attempt)  # noqa: ASYNC251  # nobody else is here
            if attempt + 1 < tries:
                print("ramal: that is not the password of this user in the directory", file=sys.stderr)
    return "that is not the password of this user in the directory, there is no such user, or the account is disabled"


def _password(name: str, file: str) -> str:
    """One line of a file or of standard input, or typed without echo. Raises ConfigError."""
    try:
        if file and file != "-":
            return Path(file).read_text().split("\n")[0].rstrip("\r")
        if file or not sys.stdin.isatty():
            if not file:
                raise ConfigError("--password-file: say where the password comes from (- is standard input)")
            return sys.stdin.readline().rstrip("\r\n")
        return getpass.getpass(f"The directory's password of {name}: ")
    except UnicodeError:
        raise ConfigError("the password is not UTF-8") from None  # whose text has a piece of it
    except OSError as error:
        raise ConfigError(f"--password-file {file}: {error.strerror}") from error


@keys_app.command("list", epilog=example("ramal keys list --json"))
def list_command(as_json: AsJson = False, data_: Data = None) -> None:
    """The ids of all keys, the one that seals first, and how many enrolments each has sealed; never a key."""
    asked = system(data(data_))
    ring = enrolling.keys_of(asked.sources).ring
    used = run(_used(asked))
    missing = [id_ for id_ in used if id_ not in ring.keys]
    found = [
        {"id": id_, "seals": id_ == ring.sealing, "enrolments": used.get(id_, 0), "missing": id_ in missing}
        for id_ in (*ring.keys, *missing)
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for each in found:
        says = " seals" * bool(each["seals"]) + " is MISSING: what it sealed cannot be opened" * bool(each["missing"])
        console.print(f"{each['id']} {each['enrolments']}{says}", soft_wrap=True)


async def _used(asked: System) -> dict[str, int]:
    async with asked.tables() as tables:
        return await used_keys(tables)


@keys_app.command("add", epilog=example("ramal keys add"))
def add_command(data_: Data = None) -> None:
    """A new key that opens and does not seal yet: for several machines, each of which must know it first."""
    asked = system(data(data_))
    ring, path = enrolling.keys_of(asked.sources).ring, enrolling.file_of(asked.sources)
    id_, key = enrolling.new_key(ring, run(_used(asked)))
    enrolling.write(path, Keyring({**ring.keys, id_: key}))
    console.print(f"{id_} is in {path}. Once every machine has it: ramal keys rotate --use {id_}", soft_wrap=True)


@keys_app.command("rotate", epilog=example("ramal keys rotate"))
def rotate_command(
    use: Annotated[str, typer.Option(metavar="ID", help="One that is there; else a new one is made.")] = "",
    data_: Data = None,
) -> None:
    """Seals every enrolment by a new key, while all goes on serving; the old ones stay until `ramal keys forget`.

    authsvc and the console read the keys' file again by themselves. If they run on several machines: `ramal keys add`,
    bring the file to all of them, then `ramal keys rotate --use ID`.
    """
    asked = system(data(data_))
    ring = enrolling.keys_of(asked.sources).ring
    if not use or use != ring.sealing:
        path = enrolling.file_of(asked.sources)
        if use:
            ring = enrolling.used_first(ring, use)
        else:
            id_, key = enrolling.new_key(ring, run(_used(asked)))
            ring = Keyring({id_: key, **ring.keys})
        enrolling.write(path, ring)
    resealed, unopened = run(_reseal(asked, ring))
    for why in unopened:
        print(f"ramal: {why}", file=sys.stderr)
    console.print(f"{ring.sealing} seals; {resealed} enrolments were sealed anew.", soft_wrap=True)
    used = run(_used(asked))
    for id_ in ring.keys:
        if id_ != ring.sealing and id_ not in used:
            console.print(f"Nothing needs {id_} but older backups: ramal keys forget {id_}", soft_wrap=True)
    if unopened:
        raise typer.Exit(1)


async def _reseal(asked: System, ring: Keyring) -> tuple[int, list[str]]:
    resealed = 0
    async with asked.tables() as tables:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("sealing", total=await enrolling.to_reseal(tables, ring))

            def done(count: int) -> None:
                nonlocal resealed
                resealed += count
                progress.advance(task, count)

            unopened = await enrolling.reseal(tables, ring, done)
            return resealed, unopened


@keys_app.command("forget", epilog=example("ramal keys forget e1"))
def forget_command(
    id_: Annotated[str, typer.Argument(metavar="ID", help="[bold]e1[/bold]")], data_: Data = None
) -> None:
    """Takes a key away that nothing needs any more."""
    asked = system(data(data_))
    ring, path = enrolling.keys_of(asked.sources).ring, enrolling.file_of(asked.sources)
    if id_ not in ring.keys:
        raise ConfigError(f"ID: there is no key {id_}; there are {', '.join(ring.keys)}")
    if id_ == ring.sealing:
        raise ConfigError(f"ID: {id_} seals; `ramal keys rotate` first")
    if count := run(_used(asked)).get(id_):
        raise ConfigError(f"ID: {count} enrolments need {id_}; `ramal keys rotate` first")
    enrolling.write(path, Keyring({other: key for other, key in ring.keys.items() if other != id_}))
    console.print(f"{id_} is forgotten.")
