"""Runs on a host: cuts and heals its network by speaking to nf_tables in the kernel itself, with no package installed.

Usage, as root of the host's network, ``python -I -S cut_netlink.py ACTION``; standard library only:

    probe                       exit status 0 when this host can do it (tried for real, in a table of its own); removes
                                the tables that any earlier owner left
    cut OWNER PORT ADDRESS...   drop packets that come from ADDRESS
    heal OWNER                  undo one owner's cut; harmless when there is none
    count OWNER                 one line per address: ADDRESS PACKETS ANSWERS, as cut.sh has it

Theory of operation
-------------------
The rules are those that cut.sh makes with the nft program: a table ``inet raftbed_OWNER`` for each owner, with a chain
that counts at priority -301 and one that drops at -300. Requests go as one batch, which the kernel takes whole or not
at all. A message is a netlink header, a small nfgenmsg header, and attributes (length, type, value), which nest.
Numbers in attributes are big-endian. The format is that of linux/netfilter/nf_tables.h and nfnetlink.h.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

NETLINK_NETFILTER = 12
SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE, GET_RULE = 0, 1, 2, 3, 6, 7
BATCH_BEGIN, BATCH_END = 16, 17
REQUEST, ACK, DUMP, CREATE, APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
MESSAGE_ERROR, MESSAGE_DONE = 2, 3
INET = 1  # NFPROTO_INET: IPv4 and IPv6 in one table
HOOK_INPUT, COUNT_PRIORITY, DROP_PRIORITY = 1, -301, -300
NESTED = 0x8000
REGISTER = 1
PREFIX = "raftbed_"


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    content = struct.pack("=HH", len(value) + 4, kind) + value
    return content + bytes(-len(content) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that is text."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that is a number of 32 bits."""
    return attribute(kind, struct.pack(">i", value))


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def expression(name: str, *parts: bytes) -> bytes:
    """One step of a rule: NFTA_LIST_ELEM with its NFTA_EXPR_NAME and NFTA_EXPR_DATA."""
    return nest(1, text(1, name), nest(2, *parts))


def load_meta(key: int) -> bytes:
    """Take what the kernel knows of a packet: 15 is its family (2 IPv4, 10 IPv6), 16 the protocol it carries."""
    return expression("meta", number(1, REGISTER), number(2, key))


def load_payload(base: int, offset: int, length: int) -> bytes:
    """Take bytes of a packet: base 1 is the network header, 2 the transport header."""
    return expression("payload", number(1, REGISTER), number(2, base), number(3, offset), number(4, length))


def equals(value: bytes) -> bytes:
    """Go on only when what was taken last is `value`."""
    return expression("cmp", number(1, REGISTER), number(2, 0), nest(3, attribute(1, value)))


def from_address(address: str) -> bytes:
    """Match packets whose source is `address`."""
    if ":" in address:
        return load_meta(15) + equals(bytes([10])) + load_payload(1, 8, 16) + equals(packed(address))
    return load_meta(15) + equals(bytes([2])) + load_payload(1, 12, 4) + equals(packed(address))


def from_port(port: int) -> bytes:
    """Match TCP packets whose source port is `port`."""
    return load_meta(16) + equals(bytes([socket.IPPROTO_TCP])) + load_payload(2, 0, 2) + equals(struct.pack(">H", port))


COUNTER = expression("counter")
DROP = expression("immediate", number(1, 0), nest(2, nest(2, number(1, 0))))


def packed(address: str) -> bytes:
    """The bytes of an address as they stand in packets."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


class Kernel:
    """One netlink socket to the packet filter of this network namespace."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        self.socket.settimeout(5.0)
        self.sequence = 0

    def message(self, kind: int, flags: int, body: bytes, family: int = INET, resource: int = 0) -> bytes:
        """A message with both of its headers."""
        self.sequence += 1
        content = struct.pack(">BBH", family, 0, resource) + body
        return struct.pack("=IHHII", len(content) + 16, kind, flags, self.sequence, 0) + content

    def request(self, action: int, flags: int, body: bytes) -> bytes:
        """A message that asks the packet filter for something."""
        return self.message(SUBSYSTEM << 8 | action, REQUEST | ACK | flags, body)

    def batch(self, requests: list[tuple[int, int, bytes]]) -> None:
        """Send requests that hold together or not at all; raises OSError with what the kernel said."""
        begin = self.message(BATCH_BEGIN, REQUEST, b"", family=0, resource=SUBSYSTEM)
        built = [self.request(*request) for request in requests]
        end = self.message(BATCH_END, REQUEST, b"", family=0, resource=SUBSYSTEM)
        self.socket.sendto(begin + b"".join(built) + end, (0, 0))
        problem, missing = 0, len(built)
        while missing:
            for kind, content in self.receive():
                if kind == MESSAGE_ERROR:
                    missing -= 1
                    problem = problem or -struct.unpack_from("=i", content)[0]
            if problem:
                # The kernel answers a batch that it refuses in fewer messages than it was sent.
                break
        if problem:
            raise OSError(problem, os.strerror(problem))

    def dump(self, action: int, body: bytes) -> list[bytes]:
        """All objects that fit `body`; the bytes of their attributes."""
        self.socket.sendto(self.message(SUBSYSTEM << 8 | action, REQUEST | DUMP, body), (0, 0))
        found: list[bytes] = []
        while True:
            for kind, content in self.receive():
                if kind == MESSAGE_DONE:
                    return found
                if kind == MESSAGE_ERROR:
                    problem = -struct.unpack_from("=i", content)[0]
                    raise OSError(problem, os.strerror(problem))
                found.append(content[4:])

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """(type, content) of each message in the next datagram."""
        data = self.socket.recv(1 << 20)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            yield kind, data[16:length]
            data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute in `data`."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def cut(kernel: Kernel, owner: str, port: int, addresses: list[str]) -> None:
    """Make an owner's table, which must not be there."""
    table = PREFIX + owner
    requests = [(NEW_TABLE, CREATE, text(1, table))]
    for chain, priority in (("counting", COUNT_PRIORITY), ("dropping", DROP_PRIORITY)):
        hook = nest(4, number(1, HOOK_INPUT), number(2, priority))
        requests.append((NEW_CHAIN, CREATE, text(1, table) + text(3, chain) + hook + text(7, "filter")))
    for address in addresses:
        source = from_address(address)
        for chain, kind, steps in (
            ("counting", b"answers ", source + from_port(port) + COUNTER),
            ("counting", b"packets ", source + COUNTER),
            ("dropping", b"drop ", source + DROP),
        ):
            # The name of a rule is user data: type 0 (comment), length, and the text with its end.
            name = kind + address.encode() + b"\0"
            comment = attribute(7, bytes([0, len(name)]) + name)
            body = text(1, table) + text(2, chain) + nest(4, steps) + comment
            requests.append((NEW_RULE, CREATE | APPEND, body))
    kernel.batch(requests)


def heal(kernel: Kernel, owner: str) -> None:
    """Remove an owner's table, if it is there."""
    try:
        kernel.batch([(DELETE_TABLE, 0, text(1, PREFIX + owner))])
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def count(kernel: Kernel, owner: str) -> dict[str, list[int]]:
    """Address to [packets, answers]."""
    found: dict[str, list[int]] = {}
    for rule in kernel.dump(GET_RULE, text(1, PREFIX + owner)):
        fields = dict(attributes(rule))
        if fields.get(1, b"").rstrip(b"\0").decode() != PREFIX + owner or 7 not in fields:
            continue
        what, _, address = fields[7][2:].rstrip(b"\0").decode().partition(" ")
        for _, element in attributes(fields.get(4, b"")):
            step = dict(attributes(element))
            if step.get(1) == b"counter\0":
                packets = struct.unpack(">Q", dict(attributes(step[2]))[2])[0]
                found.setdefault(address, [0, 0])[what == "answers"] = packets
    return found


def sweep(kernel: Kernel) -> None:
    """Remove the tables of all owners."""
    for table in kernel.dump(GET_TABLE, b""):
        name = dict(attributes(table)).get(1, b"").rstrip(b"\0").decode()
        if name.startswith(PREFIX):
            heal(kernel, name[len(PREFIX) :])


def main(argv: list[str]) -> int:
    """Do one action; returns the exit status."""
    action = argv[0]
    try:
        kernel = Kernel()
        if action == "probe":
            sweep(kernel)
            cut(kernel, "probe", 1, ["192.0.2.1", "2001:db8::1"])
            works = sorted(count(kernel, "probe")) == ["192.0.2.1", "2001:db8::1"]
            heal(kernel, "probe")
            return 0 if works else 1
        if action == "cut":
            heal(kernel, argv[1])
            cut(kernel, argv[1], int(argv[2]), argv[3:])
        elif action == "heal":
            heal(kernel, argv[1])
        elif action == "count":
            for address, (packets, answers) in count(kernel, argv[1]).items():
                print(address, packets, answers)
        else:
            print("no such action:", action, file=sys.stderr)
            return 2
    except OSError as error:
        print("the kernel's packet filter refused to", action + ":", error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
