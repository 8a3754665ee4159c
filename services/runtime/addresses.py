"""Which IP addresses are the Internet's."""

from __future__ import annotations

import ipaddress

# IPv6 addresses that carry an IPv4 one, and how many bits stand behind it: whoever routes them ends
# there. Mapped and compatible (RFC 4291), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
_CARRIERS = [
    (ipaddress.IPv6Network(network), behind)
    for network, behind in (
        ("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80),
    )
]  # fmt: skip
# Of which Python's tables say nothing, or something else in some versions. In 64:ff9b:1::/48 each
# network puts the IPv4 address where it likes, and it is never the Internet's.
_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "fec0::/10", "2001::/23")
]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the Internet at large; of one that carries another, whether
    that is. Raises ValueError where it is no address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    for network, behind in _CARRIERS:
        if ip in network:
            ip = ipaddress.IPv4Address(int(ip) >> behind & 0xFFFF_FFFF)
            break
    return ip.is_global and not ip.is_multicast and not any(ip in n for n in _NOT_PUBLIC)
