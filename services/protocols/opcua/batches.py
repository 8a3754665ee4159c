"""Requests of as many operations as the server takes: by the limits that it tells
(OPC 10000-5 §6.3.11), and halved where it refuses all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from asyncua import Client, ua

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of a server that tells no limit: its messages stay well under 1 MB.
DEFAULT = 1_000
_TOO_MANY = (
    ua.uaerrors.BadTooManyOperations,
    ua.uaerrors.BadRequestTooLarge,
    ua.uaerrors.BadResponseTooLarge,
    ua.uaerrors.BadEncodingLimitsExceeded,
)
_LIMITS = {
    "read": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    "register": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRegisterNodes,
    "browse": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    "monitor": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
}


class Batches:
    """One server's limits, as told and as found."""

    def __init__(self) -> None:
        self.limits = dict.fromkeys(_LIMITS, DEFAULT)

    async def learn(self, client: Client) -> None:
        """Asks for the limits; one by one, for a server may lack any."""
        for name, number in _LIMITS.items():
            try:
                limit = await client.get_node(ua.NodeId(number)).read_value()
            except ua.UaStatusCodeError:
                continue
            if isinstance(limit, int) and limit > 0:
                self.limits[name] = min(DEFAULT, limit)

    async def run(
        self,
        name: str,
        items: Sequence[Item],
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
    ) -> tuple[list[Result], int]:
        """(the results of ``call`` in the items' order, number of requests). Raises what ``call``
        raises for one item alone.
        """
        results: list[Result] = []
        requests = 0
        while len(results) < len(items):
            size = self.limits[name]
            part = items[len(results) : len(results) + size]
            try:
                found = await call(part)
            except _TOO_MANY:
                if len(part) == 1:
                    raise
                self.limits[name] = max(1, len(part) // 2)
                continue
            if len(found) != len(part):
                raise ua.UaError(f"{len(found)} results for {len(part)} operations")
            results += found
            requests += 1
        return results, requests
