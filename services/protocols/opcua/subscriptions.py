"""What a server tells by itself: monitored items, their notifications, and what of them is missing.

asyncua's own subscriptions are not used: they make a task of every single change, keep one request
waiting at the server (so a group is told once a round trip at most), and pass over a notification
that cannot be decoded as if it had never been sent.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import Client, ua
from asyncua.ua.uaerrors._base import UaStructParsingError

from services.protocols.opcua.batches import Batches, read_values
from services.runtime.errors import PlcUnavailable

# A subscription that is silent says so once in this time; twice that, and it is dead.
KEEP_ALIVE_S = 5.0
# A server forgets a subscription whose client asks for nothing for so long (OPC 10000-4 §5.14.2: at
# least three times the keep-alive). Longer than a session.
LIFETIME_S = 60.0
# Requests that wait at the server for something to tell, so that a notification never waits for a
# round trip.
WAITING_MIN, WAITING_MAX = 2, 8
# Notifications that are asked for again, at most, where some are missing.
REPUBLISH_MAX = 64
# StatusCode: info bits of a value (OPC 10000-4 §7.39.1): the queue had no room before this one.
OVERFLOW = 0x0480


@dataclass(slots=True)
class Item:
    """One node that a group watches."""

    group: int
    node: ua.NodeId
    key: Any
    """Whose it is: given back with each of its values."""
    is_first: bool = True
    """Nothing has come yet."""
    last: tuple[Any, Any] | None = None
    """What has come last: its value and status."""
    read: ua.DataValue | None = None
    """What was read after a notification was lost: until ``read_until_s`` older ones may come."""
    read_until_s: float = 0.0

    def has_passed(self, value: ua.DataValue) -> bool:
        """Whether something newer, or the same, was read already."""
        read = self.read
        if read is None or time.monotonic() > self.read_until_s:
            return False
        if value.SourceTimestamp is None or read.SourceTimestamp is None:
            return False
        if value.SourceTimestamp == read.SourceTimestamp:
            return (value.Value, value.StatusCode) == self.last
        return bool(value.SourceTimestamp < read.SourceTimestamp)


@dataclass(slots=True)
class Notified:
    """One value of one item."""

    item: Item
    value: ua.DataValue
    is_first: bool
    has_overflowed: bool
    """Values before this one are lost."""


@dataclass(slots=True)
class _Subscription:
    id: int
    every_s: float
    """As asked for."""
    revised_ms: float
    silence_s: float
    items: dict[int, Item] = field(default_factory=dict)
    groups: set[int] = field(default_factory=set)
    next_seq: int = 1
    heard_s: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Terms:
    """What the server makes of what was asked for."""

    refused: dict[int, ua.StatusCode] = field(default_factory=dict)
    """Place in the items asked for -> why it is not watched."""
    slower: int = 0
    """Items that are sampled less often than asked (1 % is rounding)."""
    shorter: int = 0
    """Items whose queue is shorter than asked."""
    sampling_ms: float = 0.0
    """The longest interval of an item."""
    told_ms: float = 0.0
    """How often the server tells."""
    queue: int = 0
    """The shortest queue of an item."""


class Subscriptions:
    """All of one connection. ``told(group, values)``, ``missing(group, notifications)``.

    Groups of one interval share a subscription: servers grant few (10 and 20 are usual).
    """

    def __init__(
        self,
        client: Client,
        batches: Batches,
        told: Callable[[int, list[Notified]], None],
        missing: Callable[[int, int], None],
    ) -> None:
        self._client = client
        self._session = client.uaclient.session
        # The publish loop here takes the place of the library's.
        self._session.ensure_publish_loop = lambda: None
        self._batches = batches
        self._told, self._missing = told, missing
        self._all: dict[int, _Subscription] = {}
        self._handles = 0

    async def _of(self, every_s: float) -> _Subscription:
        for one in self._all.values():
            if one.every_s == every_s:
                return one
        try:
            one = await self._create(every_s)
        except ua.uaerrors.BadTooManySubscriptions:
            if not self._all:
                raise
            # Told more often than asked, rather than not at all.
            return min(self._all.values(), key=lambda one: one.every_s)
        self._all[one.id] = one
        return one

    async def _create(self, every_s: float) -> _Subscription:
        keep_alive = max(1, math.ceil(KEEP_ALIVE_S / every_s))
        made = await self._session.create_subscription(
            ua.CreateSubscriptionParameters(
                RequestedPublishingInterval=every_s * 1_000,
                RequestedMaxKeepAliveCount=keep_alive,
                RequestedLifetimeCount=max(3 * keep_alive, math.ceil(LIFETIME_S / every_s)),
                MaxNotificationsPerPublish=0,
                PublishingEnabled=True,
                Priority=0,
            ),
            lambda _: None,
        )
        revised_ms = made.RevisedPublishingInterval
        silence_s = 2 * revised_ms / 1_000 * (made.RevisedMaxKeepAliveCount + 1) + 1
        return _Subscription(made.SubscriptionId, every_s, revised_ms, silence_s)

    async def watch(
        self, items: Sequence[Item], *, every_s: float, sampling_s: float, queue: int
    ) -> Terms:
        """Subscribes nodes: told every ``every_s`` what was sampled every ``sampling_s`` (0: as
        fast as the server can), ``queue`` changes of a node between two tellings.
        """
        one = await self._of(every_s)
        one.groups |= {item.group for item in items}
        requests: list[ua.MonitoredItemCreateRequest] = []
        for item in items:
            self._handles += 1
            one.items[self._handles] = item
            requests.append(
                ua.MonitoredItemCreateRequest(
                    ItemToMonitor=ua.ReadValueId(
                        NodeId=item.node, AttributeId=ua.AttributeIds.Value
                    ),
                    MonitoringMode=ua.MonitoringMode.Reporting,
                    RequestedParameters=ua.MonitoringParameters(
                        ClientHandle=self._handles,
                        SamplingInterval=sampling_s * 1_000,
                        QueueSize=queue,
                        DiscardOldest=True,
                    ),
                )
            )

        async def create(
            part: Sequence[ua.MonitoredItemCreateRequest],
        ) -> Sequence[ua.MonitoredItemCreateResult]:
            made: list[ua.MonitoredItemCreateResult] = await self._session.create_monitored_items(
                ua.CreateMonitoredItemsParameters(
                    SubscriptionId=one.id,
                    TimestampsToReturn=ua.TimestampsToReturn.Both,
                    ItemsToCreate=list(part),
                )
            )
            return made

        results, _ = await self._batches.run("monitor", requests, create)
        terms = Terms(queue=queue, told_ms=one.revised_ms)
        for place, result in enumerate(results):
            if not result.StatusCode.is_good():
                terms.refused[place] = result.StatusCode
                del one.items[requests[place].RequestedParameters.ClientHandle]
                continue
            terms.slower += 0 < sampling_s * 1_010 < result.RevisedSamplingInterval
            terms.shorter += result.RevisedQueueSize < queue
            terms.sampling_ms = max(terms.sampling_ms, result.RevisedSamplingInterval)
            terms.queue = min(terms.queue, result.RevisedQueueSize)
        return terms

    async def run(self) -> None:
        """Takes what the server tells, for ever. Raises what ends the connection."""
        if not self._all:
            return
        waiting = min(WAITING_MAX, max(WAITING_MIN, len(self._all) + 1))
        acks: list[ua.SubscriptionAcknowledgement] = []
        # Requests are answered in their order (OPC 10000-4 §5.14.5).
        asked = deque(asyncio.ensure_future(self._session.publish([])) for _ in range(waiting))
        try:
            while True:
                done, _ = await asyncio.wait({asked[0]}, timeout=1.0)
                if done:
                    answer = asked.popleft()
                    try:
                        acks += await self._take(await answer)
                    except UaStructParsingError:
                        pass  # it is missing: the next one's number tells it
                    except ua.uaerrors.BadTooManyPublishRequests:
                        if not asked:
                            raise
                        continue  # one fewer waits from now on
                    asked.append(asyncio.ensure_future(self._session.publish(acks)))
                    acks = []
                self._check_silence()
        finally:
            for request in asked:
                request.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    def _check_silence(self) -> None:
        now_s = time.monotonic()
        for one in self._all.values():
            if now_s - one.heard_s > one.silence_s:
                text = f"a subscription has been silent for {now_s - one.heard_s:.0f} s"
                raise PlcUnavailable("opcua_silent", text)

    async def _take(self, response: ua.PublishResponse) -> list[ua.SubscriptionAcknowledgement]:
        result = response.Parameters
        one = self._all.get(result.SubscriptionId)
        if one is None:
            return []
        one.heard_s = time.monotonic()
        message = result.NotificationMessage
        # A number that is lower than expected tells of nothing: numbers begin anew after 2^32 - 1.
        is_lost = 0 < message.SequenceNumber - one.next_seq < 2**31 and not await self._fetch(
            one, message.SequenceNumber
        )
        if message.NotificationData:
            self._read(one, message)
        if is_lost:
            await self._look_again(one)
        if not message.NotificationData:
            return []  # a keep-alive: it names the number that comes next
        return [ua.SubscriptionAcknowledgement(one.id, message.SequenceNumber)]

    async def _fetch(self, one: _Subscription, until: int) -> bool:
        """Asks again for what is missing before number ``until``; says what stays lost. Whether
        nothing does.
        """
        first = max(one.next_seq, until - REPUBLISH_MAX)
        is_whole = first == one.next_seq
        if not is_whole:
            self._tell_missing(one, first - one.next_seq)
        for number in range(first, until):
            try:
                message = await self._session.republish(one.id, number)
            except (OSError, TimeoutError):
                raise
            except Exception:  # the server has it no more, or it cannot be decoded
                self._tell_missing(one, 1)
                is_whole = False
            else:
                self._read(one, message)
        one.next_seq = until
        return is_whole

    async def _look_again(self, one: _Subscription) -> None:
        """Reads what a lost notification may have brought: until the next change, which may never
        come, an old value would be held for the present one.
        """

        async def read(part: Sequence[Item]) -> list[ua.DataValue]:
            return await read_values(self._client, [item.node for item in part])

        items = list(one.items.values())
        found, _ = await self._batches.run("read", items, read)
        until_s = time.monotonic() + 2 * one.revised_ms / 1_000 + 1
        news: dict[int, list[Notified]] = {}
        for item, value in zip(items, found, strict=True):
            now = value.Value, value.StatusCode
            if now != item.last:
                item.last, item.read, item.read_until_s, item.is_first = now, value, until_s, False
                # As a first value: what is told is that it holds now.
                news.setdefault(item.group, []).append(Notified(item, value, True, False))
        for group, told in news.items():
            self._told(group, told)

    def _tell_missing(self, one: _Subscription, count: int) -> None:
        for group in sorted(one.groups):
            self._missing(group, count)

    def _read(self, one: _Subscription, message: ua.NotificationMessage) -> None:
        number = message.SequenceNumber
        one.next_seq = number + 1 if number < 2**32 - 1 else 1
        values: dict[int, list[Notified]] = {}
        for part in message.NotificationData or []:
            if isinstance(part, ua.DataChangeNotification):
                for one_value in part.MonitoredItems:
                    item = one.items.get(one_value.ClientHandle)
                    if item is None or item.has_passed(one_value.Value):
                        continue
                    status = one_value.Value.StatusCode
                    code = status.value if status is not None else 0
                    overflow = code & OVERFLOW == OVERFLOW
                    notified = Notified(item, one_value.Value, item.is_first, overflow)
                    values.setdefault(item.group, []).append(notified)
                    item.is_first = False
                    item.last = one_value.Value.Value, one_value.Value.StatusCode
            elif isinstance(part, ua.StatusChangeNotification):
                text = f"the server ends a subscription ({part.Status.name})"
                raise PlcUnavailable("opcua_subscription_ended", text)
        for group, told in values.items():
            self._told(group, told)
