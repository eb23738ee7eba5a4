"""The command line: one verb per stage. Sees everything; nothing imports it.

Commands import what they need when they run, so that ``raftbed --help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from raftbed import __version__
from raftbed.cli_bugs import bugs_command
from raftbed.cli_cluster import cluster_group
from raftbed.cli_options import EXIT as _EXIT
from raftbed.cli_options import JSON as _JSON
from raftbed.cli_options import MEMORY as _MEMORY
from raftbed.cli_options import STORE as _STORE
from raftbed.cli_options import TIME as _TIME
from raftbed.cli_options import access_of as _access
from raftbed.cli_options import is_file as _is_file
from raftbed.cli_options import naming as _naming
from raftbed.cli_options import settings_of as _settings
from raftbed.cli_simulation import campaign, replay, shrink, simulate
from raftbed.console import Console
from raftbed.errors import EXIT_COULD_NOT_RUN, EXIT_USAGE, EXIT_VALID, RaftbedError, UsageError
from raftbed.output import OutputStream, guard_outputs

_KINDS = ("tests", "workloads", "faults", "bugs", "hosts", "systems", "runs")


class _Commands(click.Group):
    """The commands, with what the operating system may do to any of them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FileNotFoundError as error:
            try:
                os.getcwd()
            except FileNotFoundError:
                gone = "the directory that this was called in does not exist any more."
                raise RaftbedError(gone, remedy="Change to another one: cd") from error
            raise
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            raise _PipeBroke from error


class _PipeBroke(Exception):
    """Around an OSError that click answers with exit code 1, which is ours for "invalid"."""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="raftbed", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Find out whether a replicated system keeps its promises: real hosts, real faults, checked histories.

    Start with:  raftbed run partition-test

    Exit codes: 0 valid, 1 invalid, 2 unknown, 254 usage, 255 could not run.
    """
    context.obj = debug


@cli.command(short_help="Run a test, check it, write the report.")
@click.argument("test", metavar="TEST|PLAN.toml")
@click.option("--nodes", type=int, help="How many nodes.  [default: 5]")
@click.option("--time-limit", type=float, metavar="SECONDS", help="How long clients and faults work.  [default: 30]")
@click.option("--concurrency", metavar="N|Kn", help="How many clients; 2n means two per node.  [default: 2n]")
@click.option("--rate", type=float, metavar="OPS", help="Operations per second in all; 0: no limit.  [default: 500]")
@click.option("--keys", type=int, help="How many keys.  [default: 8]")
@click.option("--faults", metavar="A,B|none", help="Kinds of fault, instead of the test's own.")
@click.option("--seed", type=int, help="Makes the schedule and the operations repeat.  [default: drawn]")
@click.option("--operation-timeout", type=float, metavar="SECONDS", help="How long a client waits.  [default: 2]")
@click.option("--system", metavar="NAME", help="What is under test.  [default: raft]")
@click.option(
    "--hosts", metavar="KIND", help="local, docker, vagrant, a file.toml, or user@a,user@b.  [default: local]"
)
@click.option("--up", is_flag=True, help="Bring the machines of --hosts vagrant up where they are not.")
@click.option("--accept-new-keys", is_flag=True, help="Record host keys that are not known yet; never changed ones.")
@click.option("--ask-sudo-password", is_flag=True, help="Ask for the password of sudo on the hosts.")
@click.option("--bug", metavar="NAME", help="Plant a bug in the nodes; the run should end invalid.")
@click.option("--repeat", type=click.IntRange(1), default=1, metavar="N", help="Run N times, with seeds counting up.")
@click.option("--keep", is_flag=True, help="Leave the hosts up afterwards; remove them with: raftbed clean")
@click.option("--dry-run", is_flag=True, help="Print plan and schedule, and run nothing.")
@click.option("--quiet", is_flag=True, help="Print the result only.")
@_STORE
@_JSON
@_TIME
@_MEMORY
def run(test: str, **options: Any) -> int:
    """Run a test, check what it recorded, write the report.

    TEST is one of `raftbed list tests`, or a plan file (everything that a run is, in one TOML file).
    """
    from raftbed import listing, running

    settings = _settings(test, options)
    listing.tidy(options["store"])
    console = Console(quiet=options["quiet"], json=options["as_json"])
    request = running.RunRequest(
        settings=settings,
        store=options["store"],
        repeat=options["repeat"],
        keep=options["keep"],
        time_limit=options["check_time_limit"],
        memory_limit=options["check_memory_limit"] << 20,
        access=_access(options),
    )
    with _naming(test if _is_file(test) else ""):
        if options["dry_run"]:
            return running.dry_run(request, console)
        return _EXIT[running.run_all(request, console)]


@cli.command(short_help="Check histories or run directories.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="PATH...")
@click.option("--model", metavar="NAME", help="cas-register or kv-append.  [default: from the operations]")
@_JSON
@_TIME
@_MEMORY
@click.pass_obj
def check(
    debug: bool,
    paths: tuple[Path, ...],
    model: str | None,
    as_json: bool,
    check_time_limit: float,
    check_memory_limit: int,
) -> int:
    """Check histories (.jsonl, .jsonl.gz) or run directories; the worst verdict sets the exit code.

    A path that cannot be checked stops no other; its error then sets the exit code.
    """
    from raftbed import checking, listing
    from raftbed.console import show_results
    from raftbed.model import UNKNOWN, worst

    console = Console(json=as_json)
    limits = checking.Limits(time=check_time_limit, memory=check_memory_limit << 20)
    listing.tidy(Path("store"))
    every = []
    errors: list[tuple[Path, RaftbedError]] = []
    for path in paths:
        try:
            results = checking.check_path(path, model=model, limits=limits)
        except RaftbedError as error:
            if debug:
                raise
            console.error(error)
            errors.append((path, error))
            continue
        every.append(results)
        show_results(console, results)
    validities = [results.validity for results in every]
    validity = worst([*validities, UNKNOWN] if errors else validities)
    if as_json:
        failed = [{"path": str(path), "error": str(error)} for path, error in errors]
        console.emit({"validity": validity, "results": every, "errors": failed})
    return errors[0][1].exit_code if errors else _EXIT[validity]


@cli.command(short_help="Write the report of a run again.")
@click.argument("run_path", required=False, type=click.Path(path_type=Path, readable=False), metavar="[RUN]")
@_STORE
@_JSON
def report(run_path: Path | None, store: Path, as_json: bool) -> int:
    """Write the report of a run (default: the latest) and print its path."""
    from raftbed import checking, listing

    console = Console(json=as_json)
    listing.tidy(store)
    directory = checking.run_directory(run_path, store)
    if directory.results() is None:
        console.say("The run has not been checked yet; checking it first.")
        checking.check_run(directory, limits=checking.Limits())
    path = checking.write_report(directory)
    console.result(str(path))
    if as_json:
        console.emit({"report": str(path)})
    return EXIT_VALID


@cli.command(name="list", short_help=f"List {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
@click.argument("kind", type=click.Choice(_KINDS), metavar="KIND")
@_STORE
@_JSON
def list_command(kind: str, store: Path, as_json: bool) -> int:
    """List what there is. KIND is tests, workloads, faults, bugs, hosts, systems or runs."""
    from raftbed import listing
    from raftbed.console import table

    console = Console(json=as_json)
    if as_json:
        console.emit({kind: listing.documents(kind, store)})
    else:
        rows = listing.rows(kind, store)
        table(rows, console.result)
        if not rows:
            console.say(f"There are no {kind}.")
    return EXIT_VALID


@cli.command(short_help="Say what works on this machine, and what to install.")
@_STORE
@_JSON
def doctor(store: Path, as_json: bool) -> int:
    """Say what works on this machine, what is missing, and the command that installs or allows it.

    Ends with 0 when local hosts can be made here by you, else with 255.
    """
    from raftbed import doctor as examination
    from raftbed import listing

    console = Console(json=as_json)
    listing.tidy(store)
    console.say("Trying what this machine can do; this takes a few seconds.")
    findings = examination.diagnose(store)
    if as_json:
        console.emit({"findings": findings})
    else:
        console.result(examination.render(findings))
    return EXIT_VALID if examination.is_usable(findings) else EXIT_COULD_NOT_RUN


@cli.command(short_help="Remove hosts that were kept, and leftovers.")
@click.option(
    "--all", "everything", is_flag=True, help="Also clusters that are up, and hosts that runs of other stores kept."
)
@_STORE
@_JSON
def clean(everything: bool, store: Path, as_json: bool) -> int:
    """Remove hosts that runs of this store kept (`run --keep`), and whatever a killed run left behind."""
    from raftbed import listing

    console = Console(json=as_json)
    done = listing.clean(store, console.say, everything=everything)
    if done.left:
        console.say("One of them goes with: raftbed cluster down. All go with: raftbed clean --all")
    nothing = "Nothing else was left behind." if done.left else "Nothing was left behind."
    console.result(f"{len(done.removed)} removed." if done.removed else nothing)
    if as_json:
        console.emit({"removed": done.removed, "left": done.left})
    return EXIT_VALID


for _command in (simulate, campaign, replay, shrink, bugs_command, cluster_group):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``raftbed`` command: ends the process with the exit code."""
    guard_outputs()
    args = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in args
    args = [argument for argument in args if argument != "--debug"]  # it may stand behind the command, too
    try:
        code = cli.main(args=["--debug", *args] if debug else args, prog_name="raftbed", standalone_mode=False)
    except RaftbedError as error:
        if debug:
            Console().warn(traceback.format_exc().rstrip())  # not raised: an exit code of 1 would say "invalid"
        else:
            Console().error(error)
        code = error.exit_code
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = EXIT_USAGE
    except click.ClickException as error:
        Console().error(_usage_error(error))
        code = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        Console().warn("raftbed: interrupted.")
        code = EXIT_COULD_NOT_RUN
    except Exception as error:
        if debug:
            Console().warn(traceback.format_exc().rstrip())
        else:
            found = error.__cause__ if isinstance(error, _PipeBroke) else error
            Console().warn(f"raftbed: internal error: {type(found).__name__}: {found}")
            Console().warn("  This is a defect of raftbed; `raftbed --debug ...` shows where.")
        code = EXIT_COULD_NOT_RUN
    sys.exit(_told(code if isinstance(code, int) else EXIT_VALID))


def _told(code: int) -> int:
    """The exit code of a command that ended with `code`, now that it is known whether its output arrived.

    Whoever reads only the beginning (``| head -1``) has what he wants. A disk that is full has not.
    """
    out = sys.stdout
    if code == EXIT_VALID and isinstance(out, OutputStream) and out.failure is not None and not out.is_unread:
        reason = out.failure.strerror or out.failure
        Console().error(RaftbedError(f"standard output cannot be written: {reason}."))
        return EXIT_COULD_NOT_RUN
    return code


def _usage_error(error: click.ClickException) -> UsageError:
    """What click found wrong with the command line, as one of ours: one sentence, and what to do."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "raftbed"
    return UsageError(message, remedy=f"See: {command} --help")


if __name__ == "__main__":
    main()
