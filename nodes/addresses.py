"""Addresses of nodes, as text: "host:port", with an IPv6 address in brackets."""

from __future__ import annotations


def split(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None: it is not one."""
    host, sign, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not sign or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    if not host.isprintable() or any(character in " /@?#[]" for character in host):
        return None  # a URL, say
    return host, int(port)
