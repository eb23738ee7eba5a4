"""What faults keep on a host: their scripts, the undo scripts of what is in force, and the dead-man with its lease.

Every injection first leaves on the host what undoes it, and then acts, so that whoever comes next can heal: the
dead-man when the controller is gone, or the next run at its set-up.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raftbed.errors import FaultError
from raftbed.hosts.base import COMMAND_TIMEOUT, CommandResult, Host
from raftbed.hosts.parallel import in_parallel

LEASE_SECONDS = 30
"""A host that hears nothing of its controller for so long heals itself, unless it is told another time."""

_HERE = Path(__file__).parent
_SCRIPTS = ("cut.sh", "cut_netlink.py", "deadman.sh", "connect.py")
MECHANISMS = ("nft", "iptables", "netlink", "route")
"""Ways to cut the network, the one that is taken first where a host can do it first."""

# In each of these $1 is the directory.
_HEAL = """
[ -d "$1" ] || exit 0
rm -f "$1/lease"
for undo in "$1"/*.undo; do [ -e "$undo" ] || continue; sh "$undo"; rm -f "$undo"; done
rm -f "$1/dead-man-healed"
"""
_ARM = """
echo armed > "$1/lease"
setsid sh "$1/deadman.sh" "$1" "$2" </dev/null >/dev/null 2>&1 &
"""
# A dead-man that has healed is gone; where the controller lives after all, a new one takes its place.
_RENEW = f"""
[ -d "$1" ] || exit 0
if [ -e "$1/dead-man-healed" ]; then
    rm -f "$1/dead-man-healed"
    {_ARM}
fi
echo "$3" > "$1/lease"
"""
_ACT = """
printf "%s\\n" "$2" > "$1/$3.undo.new" && mv "$1/$3.undo.new" "$1/$3.undo" && shift 3 && exec "$@"
"""
_UNDO = """
undo="$1/$2.undo"; shift 2
[ -e "$undo" ] || echo missing
"$@" >&2 && rm -f "$undo"
"""


_CLEAN = f"""
{_HEAL}
[ ! -e "$1/cut.sh" ] || sh "$1/cut.sh" sweep >/dev/null
"""


def heal_command(home: str) -> list[str]:
    """What ends all faults that are in force on a host, whoever injected them.

    Parameters:
        home: the directory below which raftbed keeps everything of its own on that host.
    """
    return ["sh", "-c", _CLEAN, "faults", f"{home}/faults"]


@dataclass(frozen=True, slots=True)
class PacketCount:
    """Packets that a cut met.

    Attributes:
        packets: all of them.
        answers: those that came from the port that probes go to: a probe had reached the other side.
    """

    packets: int
    answers: int


class Toolbox:
    """The faults' corner of one host.

    Parameters:
        host: whose.
        lease_seconds: a host that hears nothing of its controller for so long heals itself.
    """

    def __init__(self, host: Host, *, lease_seconds: int = LEASE_SECONDS) -> None:
        self.host = host
        self._lease = str(lease_seconds)
        self.directory = f"{host.home}/faults"
        self.mechanism = ""
        """How this host cuts its network: the first of `MECHANISMS` that it can do. Known after `prepare`."""
        self._renewals = 0

    async def prepare(self) -> None:
        """Heal what an earlier run left, lay out the scripts, find out how this host cuts its network.

        Raises:
            HostError: the host cannot be used.
        """
        await self.heal_leftovers()
        await self.host.run(["mkdir", "-p", "-m", "0700", self.directory])
        await in_parallel(self.host.put((_HERE / name).read_bytes(), f"{self.directory}/{name}") for name in _SCRIPTS)
        # A run may have died with the disk of its host, and its undo scripts, gone, but its rules still in the kernel.
        found = await self.host.run([*self._shell(), "sweep"])
        self.mechanism = found.stdout.strip()
        if self.mechanism == "none":
            can = bool(self.host.python) and (await self.host.run([*self._netlink(), "probe"], check=False)).status == 0
            self.mechanism = "netlink" if can else "route"

    async def heal_leftovers(self) -> None:
        """Run every undo script that is there, and send the dead-man away."""
        await self._shell_run(_HEAL)

    async def arm(self) -> None:
        """Start the dead-man."""
        await self._shell_run(_ARM, self._lease)

    async def renew(self) -> None:
        """Tell the dead-man that the controller lives, and start a new one where it has given the controller up."""
        self._renewals += 1
        await self._shell_run(_RENEW, self._lease, str(self._renewals), timeout=max(5.0, float(self._lease) / 2))

    async def act(self, owner: str, *, undo: Sequence[str], do: Sequence[str]) -> None:
        """Leave the way back, then act; one round trip."""
        await self._shell_run(_ACT, shlex.join(undo), owner, *do)

    async def undo(self, owner: str, *, do: Sequence[str]) -> bool:
        """Act, then drop the undo script. False when there was none any more: the dead-man had run it before."""
        return "missing" not in (await self._shell_run(_UNDO, owner, *do)).stdout

    def cut(self, mechanism: str, owner: str, port: int, addresses: Sequence[str]) -> list[str]:
        """The command that cuts: packets from `addresses` are dropped here, or, with routes, packets to them.

        Parameters:
            mechanism: one of `MECHANISMS`.
            owner: the fault that cuts.
            port: TCP port that probes go to; answers from there are counted apart.
        """
        if mechanism == "netlink":
            return [*self._netlink(), "cut", owner, str(port), *addresses]
        return [*self._shell(), "cut", mechanism, owner, str(port), *addresses]

    def heal(self, mechanism: str, owner: str, port: int, addresses: Sequence[str]) -> list[str]:
        """The command that undoes `cut` with the same arguments; harmless when there is nothing to undo."""
        if mechanism == "netlink":
            return [*self._netlink(), "heal", owner]
        return [*self._shell(), "heal", mechanism, owner, str(port), *addresses]

    async def met(self, mechanism: str, owner: str) -> dict[str, PacketCount]:
        """What an owner's cut met, by the address it came from; nothing where the mechanism cannot count."""
        if mechanism == "route":
            return {}
        command = [*self._netlink(), "count", owner]
        if mechanism != "netlink":
            command = [*self._shell(), "count", mechanism, owner]
        lines = (await self.host.run(command)).stdout.splitlines()
        return {address: PacketCount(int(packets), int(answers)) for address, packets, answers in map(str.split, lines)}

    async def connect(self, addresses: Sequence[str], *, port: int, seconds: float) -> dict[str, str]:
        """Try to connect to each address; what became of each."""
        if not addresses:
            return {}
        script = f"{self.directory}/connect.py"
        command = [self.host.python, "-I", "-S", script, str(seconds), str(port), *addresses]
        result = await self.host.run(command, timeout=seconds + COMMAND_TIMEOUT)
        answers = dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)
        if set(answers) != set(addresses):
            raise FaultError(f"the probe printed {result.stdout[:200]!r}.", host=self.host.name)
        return answers

    def _shell(self) -> list[str]:
        return ["sh", f"{self.directory}/cut.sh"]

    def _netlink(self) -> list[str]:
        return [self.host.python, "-I", "-S", f"{self.directory}/cut_netlink.py"]

    async def _shell_run(self, script: str, *arguments: str, timeout: float = COMMAND_TIMEOUT) -> CommandResult:
        return await self.host.run(["sh", "-c", script, "faults", self.directory, *arguments], timeout=timeout)
