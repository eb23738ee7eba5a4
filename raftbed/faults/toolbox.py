"""What faults keep on a host: their scripts, the undo scripts of what is in force, and the dead-man with its lease.

Every injection first leaves on the host what undoes it, and then acts, so that whoever comes next can heal: the
dead-man when the controller is gone, or the next run at its set-up.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from raftbed.errors import FaultError
from raftbed.hosts.base import Host

LEASE_SECONDS = 10
"""A host that hears nothing of its controller for so long heals itself."""

_HERE = Path(__file__).parent
_SCRIPTS = ("cut.sh", "deadman.sh", "connect.py")

_HEAL = """
for undo in "$1"/*.undo; do [ -e "$undo" ] || continue; sh "$undo"; rm -f "$undo"; done
rm -f "$1/lease" "$1/dead-man-healed"
"""
_ARM = """
echo armed > "$1/lease"
setsid sh "$1/deadman.sh" "$1" "$2" </dev/null >/dev/null 2>&1 &
"""


class Toolbox:
    """The faults' corner of one host.

    Parameters:
        host: whose.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.directory = f"{host.home}/faults"
        self._renewals = 0

    async def prepare(self) -> None:
        """Heal what an earlier run left, and lay out the scripts."""
        await self.host.run(["mkdir", "-p", "-m", "0700", self.directory])
        await self.heal_leftovers()
        for name in _SCRIPTS:
            await self.host.put((_HERE / name).read_bytes(), f"{self.directory}/{name}")

    async def heal_leftovers(self) -> None:
        """Run every undo script that is there, and send the dead-man away."""
        await self.host.run(["sh", "-c", _HEAL, "heal", self.directory], timeout=20.0)

    async def arm(self) -> None:
        """Start the dead-man."""
        await self.host.run(["sh", "-c", _ARM, "arm", self.directory, str(LEASE_SECONDS)])

    async def renew(self) -> None:
        """Tell the dead-man that the controller lives."""
        self._renewals += 1
        lease = f"{self.directory}/lease"
        await self.host.run(["sh", "-c", 'echo "$1" > "$2"', "renew", str(self._renewals), lease], timeout=5.0)

    async def act(self, owner: str, *, undo: Sequence[str], do: Sequence[str]) -> None:
        """Leave the way back, then act; one round trip."""
        script = 'printf "%s\\n" "$2" > "$1" && shift 2 && exec "$@"'
        path = self._undo_path(owner)
        await self.host.run(["sh", "-c", script, "act", path, shlex.join(undo), *do])

    async def undo(self, owner: str, *, do: Sequence[str]) -> None:
        """Act, then drop the undo script."""
        await self.host.run(["sh", "-c", 'path=$1; shift; "$@" && rm -f "$path"', "undo", self._undo_path(owner), *do])

    def cut(self, action: str, mechanism: str, owner: str, addresses: Sequence[str]) -> list[str]:
        """The command that has cut.sh do something."""
        return ["sh", f"{self.directory}/cut.sh", action, mechanism, owner, *addresses]

    async def mechanism(self) -> str:
        """How this host can cut its network: "nft", "iptables" or "route"."""
        return (await self.host.run(["sh", f"{self.directory}/cut.sh", "mechanism"])).stdout.strip()

    async def dropped(self, mechanism: str, owner: str) -> int:
        """How many packets an owner's cut has dropped here."""
        return int((await self.host.run(self.cut("count", mechanism, owner, []))).stdout.strip() or 0)

    async def connect(self, addresses: Sequence[str], *, port: int, seconds: float) -> dict[str, str]:
        """Try to connect to each address; what became of each."""
        if not addresses:
            return {}
        script = f"{self.directory}/connect.py"
        command = [self.host.python, "-I", "-S", script, str(seconds), str(port), *addresses]
        result = await self.host.run(command, timeout=seconds + 10.0)
        try:
            answer: dict[str, str] = json.loads(result.stdout)
        except ValueError as error:
            raise FaultError(f"the probe printed {result.stdout[:200]!r}.", host=self.host.name) from error
        return answer

    def _undo_path(self, owner: str) -> str:
        return f"{self.directory}/{owner}.undo"
