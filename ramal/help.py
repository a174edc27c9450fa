"""How `--help` reads: commands by what they are for, the first ones first; flags without a type; text that flows."""

from typing import Any

import typer
from typer.core import TyperGroup

PANELS = {
    "To begin": ("up",),
    "Phones and users": ("show", "history", "at", "remove", "kick", "user", "alias", "enroll", "import", "forget"),
    "Calls": ("calls", "call", "explain", "missed", "export", "audit-cdrs"),
    "The system": ("top", "operator", "keys", "trace", "tail", "config", "topics", "migrate", "rebuild", "leave"),
    "Services, over Kafka and MySQL": (
        "stack", "run", "edge", "authsvc", "registrar", "locator", "cdr", "analytics", "console",
    ),
}  # fmt: skip


class Ramal(TyperGroup):
    """The commands of `ramal`, in the order in which somebody needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the panels; a command that has no panel comes last."""
        named = [name for names in PANELS.values() for name in names if name in self.commands]
        return [*named, *(name for name in self.commands if name not in named)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, readable."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            panels = [panel for panel, names in PANELS.items() if cmd_name in names]
            command.rich_help_panel = panels[0] if panels else None
            _readable(command, ctx)
        return command

    def get_params(self, ctx: Any) -> list[Any]:
        """Those of `ramal` itself."""
        return _flags(super().get_params(ctx))


def _readable(command: Any, ctx: Any) -> None:
    """Lines of its text that the code breaks go on; its flags are no values."""
    if command.help:
        command.help = "\n\n".join(" ".join(each.split()) for each in command.help.split("\n\n"))
    _flags([*command.params, command.get_help_option(typer.Context(command, parent=ctx))])
    for each in getattr(command, "commands", {}).values():
        _readable(each, ctx)


def _flags(params: list[Any]) -> list[Any]:
    for each in params:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return params
