"""What a session may ask: of its tenants and of its own subscriptions, and no change of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState
from asyncua.ua.uaprotocol_auto import DataChangeFilter  # what is decoded; ua's is a subclass

from services.publisher.opcua.points import Point
from services.publisher.opcua.users import NOBODY

_C = ua.StatusCodes
_DECRYPT: dict[str, Callable[[Any, bytes], bytes]] = {
    "http://www.w3.org/2001/04/xmlenc#rsa-oaep": uacrypto.decrypt_rsa_oaep,
    "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256": uacrypto.decrypt_rsa_oaep_sha256,
}
_EVERY_TIME = ua.DataChangeTrigger.StatusValueTimestamp
MIN_PUBLISHING_MS = 50.0
"""The shortest publishing interval that is granted."""
MAX_QUEUE = 100
"""Values that one monitored item holds for a client that is slow to ask."""
MAX_ITEMS = 50_000
"""Monitored items, of all sessions."""
MAX_SESSION_ITEMS, MAX_SESSION_SUBSCRIPTIONS = MAX_ITEMS // 2, 100
"""Of one session: room is left for others."""
MAX_OPERATIONS = 10_000
"""Of one request: what asyncua tells clients (MaxNodesPerRead …), and does not hold them to."""
# SByte … Double, and Duration.
_NUMBERS = {*range(2, 12), 290}


def _few(operations: Sequence[Any]) -> None:
    if len(operations) > MAX_OPERATIONS:
        raise ServiceError(_C.BadTooManyOperations)


def _items(subscriptions: Iterable[Any]) -> int:
    return sum(len(s.monitored_item_srv._monitored_items) for s in subscriptions)


class Internal(InternalServer):
    """asyncua's inner server with our sessions. ``namespace`` is the box's."""

    namespace = -1

    def create_session(
        self, name: str, user: User = NOBODY, external: bool = False
    ) -> InternalSession:
        """A session of ours."""
        return Session(self, self.aspace, self.subscription_service, name, user, external)

    def decrypt_user_token(
        self, isession: InternalSession, token: ua.UserNameIdentityToken
    ) -> tuple[str, str]:
        """As asyncua's; but what was encrypted for another session is nobody's password here, and
        PKCS #1 v1.5, whose padding tells who asks often enough, is not taken.
        """
        name, secret = token.UserName or "", token.Password or b""
        if token.EncryptionAlgorithm:
            decrypt = _DECRYPT.get(token.EncryptionAlgorithm)
            if decrypt is None:
                raise ServiceError(_C.BadSecurityPolicyRejected)
            # OPC 10000-4, 7.41.2.3: the length, the password, this session's last nonce.
            plain, nonce = decrypt(self.private_key, secret), isession.nonce or b""
            secret = plain[4 : 4 + int.from_bytes(plain[:4], "little")]
            if not nonce or not secret.endswith(nonce):
                raise ServiceError(_C.BadIdentityTokenInvalid)
            secret = secret[: -len(nonce)]
        return name, secret.decode()

    def verify_x509_token(
        self, isession: Any, token: ua.X509IdentityToken, signature: ua.SignatureData
    ) -> bytes:
        """As asyncua's, without SHA-1."""
        if "sha1" in (signature.Algorithm or ""):
            raise ServiceError(_C.BadSecurityPolicyRejected)
        return super().verify_x509_token(isession, token, signature)

    @property
    def items(self) -> int:
        """Monitored items of all sessions."""
        return _items(self.subscription_service.subscriptions.values())

    @property
    def sessions(self) -> int:
        """Those that are signed in."""
        return sum(s.is_activated() for s in self._external_sessions.values())


class Session(InternalSession):
    """One client's session."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.user: User
        self.nonce: bytes | None
        self.iserver.unregister_external_session(self)
        self.auth_token = ua.NodeId(os.urandom(32), 0, ua.NodeIdType.ByteString)
        self.iserver.register_external_session(self)
        self.certificate: bytes | None = None
        """The channel's that it was made on."""

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        """A session that was somebody's stays his: its subscriptions show his tenants."""
        before = self.user if self.state is SessionState.Activated else None
        nonce = self.nonce
        result = super().activate_session(params, peer_certificate)
        if before is not None and before != self.user:
            self.user, self.nonce = before, nonce
            raise ServiceError(_C.BadUserAccessDenied)
        return result

    # -- tenants -------------------------------------------------------------------------

    def sees(self, node: Any) -> bool:
        """Whether the user may know of this node."""
        tenants: frozenset[str] | None = getattr(self.user, "tenants", frozenset())
        if tenants is None or node.NamespaceIndex != self.iserver.namespace:
            return True
        return str(node.Identifier).split("/", 1)[0] in tenants

    def _hidden(self) -> ua.NodeId:
        """Stands for a node that he may not know of: what is not there."""
        return ua.NodeId("", self.iserver.namespace)

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """What is not his is not there."""
        _few(params.NodesToRead)
        for item in params.NodesToRead:
            if not self.sees(item.NodeId):
                item.NodeId = self._hidden()
        return await super().read(params)

    async def browse(self, params: ua.BrowseParameters) -> list[ua.BrowseResult]:
        """Likewise."""
        _few(params.NodesToBrowse)
        for item in params.NodesToBrowse:
            if not self.sees(item.NodeId):
                item.NodeId = self._hidden()
        results = await super().browse(params)
        for result in results:
            result.References = [r for r in result.References if self.sees(r.NodeId)]
        return results

    async def translate_browsepaths_to_nodeids(
        self, params: list[ua.BrowsePath]
    ) -> list[ua.BrowsePathResult]:
        """Likewise."""
        _few(params)
        for path in params:
            if not self.sees(path.StartingNode):
                path.StartingNode = self._hidden()
        results = await super().translate_browsepaths_to_nodeids(params)
        for result in results:
            found = [t for t in result.Targets if self.sees(t.TargetId)]
            if len(found) < len(result.Targets):
                result.Targets = found
                if not found:
                    result.StatusCode = ua.StatusCode(_C.BadNoMatch)
        return results

    # -- nothing is written, nothing is kept ---------------------------------------------

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """The box only shows."""
        return [ua.StatusCode(_C.BadNotWritable) for _ in params.NodesToWrite]

    async def history_read(self, params: ua.HistoryReadParameters) -> list[ua.HistoryReadResult]:
        """Nothing is kept here that could be read."""
        code = ua.StatusCode(_C.BadHistoryOperationUnsupported)
        return [ua.HistoryReadResult(StatusCode=code) for _ in params.NodesToRead]

    # -- subscriptions -------------------------------------------------------------------

    def _own(self) -> list[Any]:
        """Its subscriptions."""
        every = self.subscription_service.subscriptions.values()
        return [s for s in every if s.session_id == self.session_id]

    def _is_own(self, subscription: int) -> bool:
        found = self.subscription_service.subscriptions.get(subscription)
        return found is not None and found.session_id == self.session_id

    def _must_own(self, subscription: int) -> None:
        if not self._is_own(subscription):
            raise ServiceError(_C.BadSubscriptionIdInvalid)

    async def create_subscription(
        self, params: ua.CreateSubscriptionParameters, *rest: Any, **named: Any
    ) -> ua.CreateSubscriptionResult:
        """Not faster than MIN_PUBLISHING_MS: 0 would mean a message per value."""
        if len(self._own()) >= MAX_SESSION_SUBSCRIPTIONS:
            raise ServiceError(_C.BadTooManySubscriptions)
        asked = params.RequestedPublishingInterval
        # Not max(): a NaN would pass.
        params.RequestedPublishingInterval = asked if asked >= MIN_PUBLISHING_MS else 50.0
        return await super().create_subscription(params, *rest, **named)

    def modify_subscription(
        self, params: ua.ModifySubscriptionParameters
    ) -> ua.ModifySubscriptionResult:
        """Of its own."""
        self._must_own(params.SubscriptionId)
        return super().modify_subscription(params)

    async def delete_subscriptions(self, ids: list[int]) -> list[ua.StatusCode]:
        """Of its own."""
        return await self._each(ids, self._is_own, super().delete_subscriptions)

    async def set_publishing_mode(self, params: ua.SetPublishingModeParameters) -> list[Any]:
        """Of its own."""
        set_mode = super().set_publishing_mode

        async def those(ids: list[int]) -> list[ua.StatusCode]:
            params.SubscriptionIds = ids
            return await set_mode(params)

        return await self._each(params.SubscriptionIds, self._is_own, those)

    @staticmethod
    async def _each(ids: list[int], good: Callable[[int], bool], do: Any) -> list[ua.StatusCode]:
        """``do`` those that are good; the others are unknown to this session."""
        answers = iter(await do([i for i in ids if good(i)]))
        unknown = ua.StatusCode(_C.BadSubscriptionIdInvalid)
        return [next(answers) if good_one else unknown for good_one in map(good, ids)]

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        """Of its own."""
        self._must_own(params.SubscriptionId)
        return super().republish(params)

    def publish(
        self, acks: Iterable[ua.SubscriptionAcknowledgement] | None = None
    ) -> tuple[int, list[ua.StatusCode]]:
        """Acknowledges of its own only."""
        asked = list(acks or [])
        mine = [self._is_own(a.SubscriptionId) for a in asked]
        count, answers = super().publish([a for a, own in zip(asked, mine, strict=True) if own])
        left = iter(answers)
        unknown = ua.StatusCode(_C.BadSubscriptionIdInvalid)
        return count, [next(left) if own else unknown for own in mine]

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """Values of nodes that it sees; filters by change only."""
        self._must_own(params.SubscriptionId)
        _few(params.ItemsToCreate)
        room = min(MAX_ITEMS - self.iserver.items, MAX_SESSION_ITEMS - _items(self._own()))
        refusals = [self._refusal(item, room - i) for i, item in enumerate(params.ItemsToCreate)]
        params.ItemsToCreate = [
            item for item, no in zip(params.ItemsToCreate, refusals, strict=True) if no is None
        ]
        made = iter(await super().create_monitored_items(params))
        return [
            next(made) if no is None else ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(no))
            for no in refusals
        ]

    def _refusal(self, item: ua.MonitoredItemCreateRequest, room: int) -> int | None:
        asked = item.RequestedParameters
        # 0 and 1 both mean the newest one only (OPC 10000-4, 7.21); asyncua takes 0 for all it has.
        asked.QueueSize = min(max(asked.QueueSize, 1), MAX_QUEUE)
        node, attribute = item.ItemToMonitor.NodeId, item.ItemToMonitor.AttributeId
        if room <= 0:
            return _C.BadTooManyMonitoredItems
        if not self.sees(node):
            return _C.BadNodeIdUnknown
        if attribute != ua.AttributeIds.Value:
            return _C.BadAttributeIdInvalid  # names do not change; there are no events
        if isinstance(asked.Filter, ua.ExtensionObject):  # none, as many a client writes it
            asked.Filter = None if asked.Filter.TypeId.is_null() else asked.Filter
        if asked.Filter is not None and not isinstance(asked.Filter, DataChangeFilter):
            return _C.BadMonitoredItemFilterUnsupported
        if asked.Filter is not None and asked.Filter.DeadbandType:
            return self._deadband(node, asked.Filter)
        if asked.Filter is not None and asked.Filter.Trigger == _EVERY_TIME:
            data = self.aspace.get(node)
            if data is not None and isinstance(point := data.attributes.get(attribute), Point):
                point.wants_times = True
        return None

    def _deadband(self, node: ua.NodeId, asked: DataChangeFilter) -> int | None:
        if asked.DeadbandType != ua.DeadbandType.Absolute:
            return _C.BadMonitoredItemFilterUnsupported
        read = self.aspace.read_attribute_value
        kind = read(node, ua.AttributeIds.DataType).Value
        rank = read(node, ua.AttributeIds.ValueRank).Value
        numeric = kind is not None and getattr(kind.Value, "Identifier", 0) in _NUMBERS
        return None if numeric and rank and rank.Value == -1 else _C.BadFilterNotAllowed

    async def modify_monitored_items(self, params: ua.ModifyMonitoredItemsParameters) -> list[Any]:
        """Not at all: who wants another filter makes another item."""
        self._must_own(params.SubscriptionId)
        code = ua.StatusCode(_C.BadServiceUnsupported)
        return [ua.MonitoredItemModifyResult(StatusCode=code) for _ in params.ItemsToModify]

    async def delete_monitored_items(self, params: ua.DeleteMonitoredItemsParameters) -> list[Any]:
        """Of its own."""
        self._must_own(params.SubscriptionId)
        return await super().delete_monitored_items(params)

    async def set_monitoring_mode(self, params: ua.SetMonitoringModeParameters) -> list[Any]:
        """Of its own."""
        self._must_own(params.SubscriptionId)
        return await super().set_monitoring_mode(params)
