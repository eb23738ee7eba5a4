"""From test, plan file, command line and seed to a `Plan`: pure, and the same for the same input.

A plan file is TOML whose keys are the names of `PlanSettings`; the command line sets the same names and wins. A
``plan.json`` of an earlier run is a plan file too, and repeats that run's schedule to the letter.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from raftbed import suite
from raftbed.errors import PlanError
from raftbed.hosts.inventory_file import is_inventory
from raftbed.model import FaultStep, Plan

_DEFAULT_TIME_LIMIT = 30.0
_SIMULATED_TIME_LIMIT = 10.0  # many short runs find more than a long one
_SIMULATED_RATE = 80.0
_DEFAULT_NODES = 5
_DEFAULT_OPERATION_TIMEOUT = 2.0
_MOST_NODES = 50


class PlanSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a user may say about a run; None means: as the test, the bug or the default has it.

    Attributes are those of :class:`raftbed.model.Plan`, except that `nodes` may be a count and `concurrency` may be
    written as a multiple of the nodes, "2n".
    """

    test: str = ""
    system: str | None = None
    hosts: str | None = None
    nodes: int | list[str] | None = None
    workload: str | None = None
    faults: list[str] | None = None
    checks: list[str] | None = None
    seed: int | None = None
    time_limit: float | None = None
    concurrency: int | str | None = None
    rate: float | None = None
    keys: int | None = None
    operation_timeout: float | None = None
    recovery_timeout: float | None = None
    bug: str | None = None
    node_options: dict[str, Any] = {}
    schedule: list[FaultStep] | None = None
    own_options: dict[str, dict[str, Any]] | None = None
    rare_points: dict[str, float] | None = None


def read_settings(path: Path) -> PlanSettings:
    """Read a plan file, TOML or (by its ending) JSON.

    Raises:
        PlanError: unreadable or malformed; names the file, the key and what to write instead.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror or error}.") from error
    try:
        raw = msgspec.json.decode(content) if path.suffix == ".json" else tomllib.loads(content.decode())
        return msgspec.convert(raw, PlanSettings)
    except msgspec.ValidationError as error:
        known = ", ".join(PlanSettings.__struct_fields__)
        raise PlanError(f"{path}: {error}.", remedy=f"Keys of a plan: {known}.") from error
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise PlanError(f"{path}: is not {kind}: {error}.") from error


def override(base: PlanSettings, **changes: Any) -> PlanSettings:
    """`base` with those of `changes` that are not None."""
    return msgspec.structs.replace(base, **{name: value for name, value in changes.items() if value is not None})


def make_plan(settings: PlanSettings, *, seed: int) -> Plan:
    """The plan that `settings` describe, its schedule spelled out.

    Parameters:
        settings: as read and overridden.
        seed: used when the settings name none.

    Raises:
        PlanError, UsageError: something named does not exist, a number is out of bounds, or parts contradict.
    """
    test: suite.NamedTest = suite.pick(suite.TESTS, settings.test, "test")
    workload_name = settings.workload or test.workload
    workload = suite.pick(suite.WORKLOADS, workload_name, "workload")()
    system = settings.system or "raft"
    suite.pick(suite.SYSTEMS, system, "system")
    hosts = settings.hosts or test.hosts
    if not is_inventory(hosts):
        suite.pick({**suite.HOSTS, **suite.HOSTS_BY_NAME}, hosts, "kind of hosts")
    faults = tuple(dict.fromkeys(settings.faults if settings.faults is not None else suite.faults_of(test, hosts)))
    _check_faults(faults, hosts, settings.schedule or ())
    nodes = _node_names(settings.nodes if settings.nodes is not None else bug_nodes(settings.bug))
    simulated = hosts in suite.IN_VIRTUAL_TIME
    usual = _SIMULATED_TIME_LIMIT if simulated else _DEFAULT_TIME_LIMIT
    time_limit = _bounded("time_limit", settings.time_limit, default=usual, least=1.0, most=86_400.0)
    operation_timeout = _bounded(
        "operation_timeout", settings.operation_timeout, default=_DEFAULT_OPERATION_TIMEOUT, least=0.05, most=600.0
    )
    usual_rate = _SIMULATED_RATE if simulated else 500.0
    own = workload.checks + suite.SYSTEM_CHECKS.get(system, ())
    checks = _checks(settings.checks, own + suite.simulated_checks(hosts))
    the_seed = settings.seed if settings.seed is not None else seed
    node_options = {**test.node_options, **_bug_options(settings.bug), **settings.node_options}
    _check_node_options(system, node_options)
    own_options, rare_points = _unusual(settings, test, hosts, nodes, the_seed)
    for name, options in own_options.items():
        _check_node_options(system, {**node_options, **options}, f"own_options of {name}")
    return Plan(
        test=test.name,
        system=system,
        hosts=hosts,
        nodes=nodes,
        workload=workload_name,
        faults=faults,
        checks=checks,
        seed=the_seed,
        time_limit=time_limit,
        concurrency=_concurrency(settings.concurrency, len(nodes)),
        rate=_bounded(
            "rate", settings.rate, default=usual_rate if test.rate is None else test.rate, least=0.0, most=1e6
        ),
        keys=int(_bounded("keys", settings.keys, default=8, least=1, most=1e6)),
        operation_timeout=operation_timeout,
        recovery_timeout=_bounded("recovery_timeout", settings.recovery_timeout, default=15.0, least=1.0, most=3600.0),
        bug=settings.bug,
        node_options=node_options,
        schedule=_schedule(settings.schedule, faults, nodes, time_limit, operation_timeout, the_seed),
        own_options=own_options,
        rare_points=rare_points,
    )


def repeat_command(plan: Plan, file: Path | None = None) -> str | None:
    """The command line that makes the same plan again (with the same version of raftbed).

    Parameters:
        plan: to be made again.
        file: where it is recorded; named where options cannot say all of it (a schedule written by hand, say).

    Returns:
        None when options cannot say all of it, and there is no file.
    """
    verb = "simulate" if plan.hosts in suite.IN_VIRTUAL_TIME else "run"
    parts = ["raftbed", verb, plan.test, "--seed", str(plan.seed), "--nodes", str(len(plan.nodes))]
    parts += ["--time-limit", f"{plan.time_limit:.12g}", "--concurrency", str(plan.concurrency)]
    parts += ["--rate", f"{plan.rate:.12g}", "--keys", str(plan.keys)]
    if plan.operation_timeout != _DEFAULT_OPERATION_TIMEOUT:
        parts += ["--operation-timeout", f"{plan.operation_timeout:.12g}"]
    if plan.faults != suite.faults_of(suite.TESTS[plan.test], plan.hosts):
        parts += ["--faults", ",".join(plan.faults) or "none"]
    if plan.hosts == suite.REAL_NODES:
        parts += ["--real-nodes"]
    elif plan.hosts not in ("local", suite.SIMULATED):
        parts += ["--hosts", shlex.quote(plan.hosts)]
    if plan.system != "raft":
        parts += ["--system", plan.system]
    if plan.bug:
        parts += ["--bug", plan.bug]
    said = PlanSettings(
        test=plan.test,
        system=plan.system,
        hosts=plan.hosts,
        nodes=len(plan.nodes),
        faults=list(plan.faults),
        seed=plan.seed,
        time_limit=plan.time_limit,
        concurrency=plan.concurrency,
        rate=plan.rate,
        keys=plan.keys,
        operation_timeout=plan.operation_timeout,
        bug=plan.bug,
    )
    if make_plan(said, seed=plan.seed) == plan:
        return " ".join(parts)
    return f"raftbed {verb} {shlex.quote(str(file))}" if file is not None else None


def _node_names(nodes: int | list[str] | None) -> tuple[str, ...]:
    if isinstance(nodes, list):
        well_formed = all(re.fullmatch(r"[a-z][a-z0-9-]{0,14}", name) for name in nodes)
        if not nodes or len(set(nodes)) != len(nodes) or not well_formed:
            raise PlanError(f"nodes: {nodes!r} are not distinct names.", remedy='Write a count, or ["n1", "n2", "n3"].')
        return tuple(nodes)
    count = int(_bounded("nodes", nodes, default=_DEFAULT_NODES, least=1, most=_MOST_NODES))
    return tuple(f"n{number}" for number in range(1, count + 1))


def _bounded(name: str, value: float | None, *, default: float, least: float, most: float) -> float:
    if value is None:
        return default
    if not least <= value <= most:  # also refuses NaN
        raise PlanError(f"{name}: {value:g} is out of bounds.", remedy=f"Choose from {least:g} to {most:g}.")
    return value


def _concurrency(given: int | str | None, nodes: int) -> int:
    text = str(given if given is not None else "2n").strip()
    match = re.fullmatch(r"(\d+)(n?)", text)
    workers = int(match[1]) * (nodes if match[2] else 1) if match else 0
    if not 1 <= workers <= 10_000:
        raise PlanError(
            f"concurrency: {text!r} is not a number of workers.",
            remedy='Write a number from 1 to 10000, or a multiple of the nodes such as "2n".',
        )
    return workers


def _check_faults(kinds: Sequence[str], hosts: str, schedule: Sequence[FaultStep]) -> None:
    """Refuse faults that there are not, and on real hosts those that only the simulator has."""
    table = {**suite.FAULTS, **suite.SIMULATED_FAULTS, **suite.SHELL_FAULTS}
    for kind in (*kinds, *(step.kind for step in schedule)):
        suite.pick(table, kind, "fault")
        if kind in suite.SIMULATED_FAULTS and hosts not in suite.IN_VIRTUAL_TIME:
            raise PlanError(f"faults: only the simulator has {kind!r}.", remedy="Use `raftbed simulate`.")
        if kind in suite.SHELL_FAULTS and hosts != suite.REAL_NODES:
            what = f"faults: only real nodes in virtual time have {kind!r}."
            raise PlanError(what, remedy="Use `raftbed simulate --real-nodes`.")


def _checks(chosen: list[str] | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    if chosen is None:
        return usual
    unknown = [name for name in chosen if name not in usual]
    if unknown or not chosen:
        raise PlanError(
            f"checks: {', '.join(unknown) or 'an empty list'} does not fit the workload and the system.",
            remedy=f"They have: {', '.join(usual)}.",
        )
    return tuple(chosen)


def _bug_options(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    from raftbed import bugs

    suite.pick(dict.fromkeys(bugs.names()), name, "bug")
    return dict(bugs.load(name).node_options)


def bug_nodes(name: str | None) -> int | None:
    """The size of cluster that a bug needs, if it needs one."""
    if name is None:
        return None
    from raftbed import bugs

    suite.pick(dict.fromkeys(bugs.names()), name, "bug")
    return bugs.load(name).nodes


def _unusual(
    settings: PlanSettings, test: suite.NamedTest, hosts: str, nodes: Sequence[str], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Options of single nodes, and rare points: those given; else, where the seed makes the schedule, too, its own."""
    from raftbed import swarm

    own_options, rare_points = settings.own_options, settings.rare_points
    if (own_options or rare_points) and hosts not in suite.IN_VIRTUAL_TIME:
        raise PlanError("own_options, rare_points: only the simulator has them.", remedy="Use `raftbed simulate`.")
    for node in own_options or ():
        if node not in nodes:
            raise PlanError(f"own_options: there is no node {node!r}.", remedy=f"There are: {', '.join(nodes)}.")
    for point, chance in (rare_points or {}).items():
        suite.pick(swarm.POINTS, point, "rare point")
        _bounded(f"rare_points: {point}", chance, default=0.0, least=0.0, most=1.0)
    dealt = test.swarm and settings.schedule is None
    fixed = {**_bug_options(settings.bug), **settings.node_options}
    if own_options is None:
        own_options = swarm.draw_options(nodes, seed, fixed=fixed) if dealt else {}
    if rare_points is None:
        rare_points = swarm.arm(seed) if dealt else {}
    return own_options, rare_points


def _check_node_options(system: str, options: dict[str, Any], what: str = "node_options") -> None:
    """Refuse now what a node would refuse on its host."""
    if system != "raft":
        return
    from raftbed.nodes.raft.config import Config
    from raftbed.nodes.raft.errors import ConfigError

    try:
        Config.from_mapping("plan", options)
    except ConfigError as error:
        raise PlanError(f"{what}: {error}") from error


def _schedule(
    given: list[FaultStep] | None,
    faults: tuple[str, ...],
    nodes: tuple[str, ...],
    time_limit: float,
    operation_timeout: float,
    seed: int,
) -> tuple[FaultStep, ...]:
    from raftbed import schedule

    if given is not None:
        return schedule.validate_schedule(given, nodes=nodes, time_limit=time_limit)
    return schedule.make_schedule(
        faults, nodes=nodes, time_limit=time_limit, operation_timeout=operation_timeout, seed=seed
    )
