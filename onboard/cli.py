"""The program `pilotage`: gathers the sub-commands of the rooms and catches their errors in one place."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import EntryPoint, entry_points

import typer

from onboard import __version__
from onboard.errors import PilotageError

GROUP = "pilotage.commands"


def _mount(app: typer.Typer, entry: EntryPoint) -> None:
    """Put one room's commands under the name of its entry point."""
    target = entry.load()
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=entry.name)
    else:
        app.command(entry.name)(target)


def build_app(arguments: list[str]) -> typer.Typer:
    """The program for these arguments: only the asked-for room is imported; --help imports all it can."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback(help="Lets a drone without GPS find itself on a satellite map by looking down.")
    def _root() -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells of every instruction set that it tries

    @app.command("version", help="Print the version.")
    def _version() -> None:
        print(__version__)

    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    wanted = arguments[0] if arguments else ""
    if wanted in entries:
        try:
            _mount(app, entries[wanted])
        except ModuleNotFoundError as error:
            raise _missing(wanted, error) from error
        return app
    for entry in sorted(entries.values(), key=lambda e: e.name):
        try:
            _mount(app, entry)
        except ModuleNotFoundError:
            continue  # this machine lacks that room's libraries; naming the room says which
    return app


def _missing(command: str, error: ModuleNotFoundError) -> PilotageError:
    extra = {"train": "training", "evaluate": "training", "export": "export"}.get(command, "desktop")
    remedy = f"install it with: pip install 'pilotage[{extra}]'"
    return PilotageError(f"`pilotage {command}` needs a library that is not installed", error.name, "", remedy)


def main() -> None:
    """Run; a PilotageError becomes one line on stderr and exit status 2."""
    try:
        build_app(sys.argv[1:])(standalone_mode=True)
    except PilotageError as error:
        print(f"pilotage: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:  # the rooms import what is heavy when it is needed
        print(f"pilotage: {_missing(sys.argv[1], error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pilotage: stopped", file=sys.stderr)
        sys.exit(130)
