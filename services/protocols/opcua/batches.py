"""Requests of as many operations as the server takes: by the limits that it tells
(OPC 10000-5 §6.3.11), and halved where it refuses all the same; and of reads, where one value
cannot be decoded.
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
_UNDECODABLE = ua.StatusCode(ua.StatusCodes.BadDecodingError)
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
        self.heard: Callable[[], None] = lambda: None
        """Called whenever an answer has come: of many, all together may take long."""

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
            self.heard()
        return results, requests


async def read_values(
    client: Client, nodes: Sequence[ua.NodeId], attribute: ua.AttributeIds = ua.AttributeIds.Value
) -> list[ua.DataValue]:
    """One attribute of each node. What the library cannot decode is BadDecodingError, alone."""
    asked = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes]
    parameters = ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both, NodesToRead=asked)
    try:
        found: list[ua.DataValue] = await client.uaclient.session.read(parameters)
    except (OSError, TimeoutError, ua.UaStatusCodeError):
        raise
    except Exception:  # its parser raises many kinds
        if len(nodes) == 1:
            return [ua.DataValue(StatusCode=_UNDECODABLE)]
        half = len(nodes) // 2
        first = await read_values(client, nodes[:half], attribute)
        return first + await read_values(client, nodes[half:], attribute)
    return found
