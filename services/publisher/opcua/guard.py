"""Who may speak to the server, and what he may ask.

asyncua's server asks little: it opens a channel with any certificate, and without security even
where no endpoint offers that; whoever knows a session's number (they count up from 1,000) may take
the session over with its subscriptions; a subscription obeys every session. Here

* a channel with security opens for certificates on the trust list only; without security
  (``insecure: true``) nothing but the question for endpoints is answered elsewhere;
* a session keeps its certificate and its user, and its token cannot be guessed;
* a session sees its user's tenants and its own subscriptions, and nothing can be written or called.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.security_policies import SecurityPolicyFactory, SecurityPolicyNone
from asyncua.server.binary_server_asyncio import OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import uatcp_to_binary
from asyncua.ua.uaprotocol_auto import DataChangeFilter  # what is decoded; ua's is a subclass
from cryptography.exceptions import InvalidSignature

from services.opcua import certificates
from services.opcua.certificates import TrustList
from services.publisher.opcua.space import Point

_I = ua.ObjectIds
_C = ua.StatusCodes
Say = Callable[[str, str, str], None]
"""(level, code, text): a line for people."""

_DISCOVERY = {
    _I.FindServersRequest_Encoding_DefaultBinary,
    _I.GetEndpointsRequest_Encoding_DefaultBinary,
    _I.CloseSecureChannelRequest_Encoding_DefaultBinary,
}
_EVERY_TIME = ua.DataChangeTrigger.StatusValueTimestamp
_ACTIVATE = _I.ActivateSessionRequest_Encoding_DefaultBinary
_SERVICES = _DISCOVERY | {
    _ACTIVATE,
    _I.CreateSessionRequest_Encoding_DefaultBinary,
    _I.CloseSessionRequest_Encoding_DefaultBinary,
    _I.ReadRequest_Encoding_DefaultBinary,
    _I.WriteRequest_Encoding_DefaultBinary,  # answered, item by item, that it may not
    _I.HistoryReadRequest_Encoding_DefaultBinary,  # likewise
    _I.BrowseRequest_Encoding_DefaultBinary,
    _I.TranslateBrowsePathsToNodeIdsRequest_Encoding_DefaultBinary,
    _I.RegisterNodesRequest_Encoding_DefaultBinary,
    _I.UnregisterNodesRequest_Encoding_DefaultBinary,
    _I.CreateSubscriptionRequest_Encoding_DefaultBinary,
    _I.ModifySubscriptionRequest_Encoding_DefaultBinary,
    _I.DeleteSubscriptionsRequest_Encoding_DefaultBinary,
    _I.SetPublishingModeRequest_Encoding_DefaultBinary,
    _I.CreateMonitoredItemsRequest_Encoding_DefaultBinary,
    _I.ModifyMonitoredItemsRequest_Encoding_DefaultBinary,
    _I.DeleteMonitoredItemsRequest_Encoding_DefaultBinary,
    _I.SetMonitoringModeRequest_Encoding_DefaultBinary,
    _I.PublishRequest_Encoding_DefaultBinary,
    _I.RepublishRequest_Encoding_DefaultBinary,
}
MIN_PUBLISHING_MS = 50.0
"""The shortest publishing interval that is granted."""
MAX_QUEUE = 100
"""Values that one monitored item holds for a client that is slow to ask."""
MAX_ITEMS = 50_000
"""Monitored items, of all sessions."""
LOGIN_PAUSE_S = 1.0
"""After a refused login, on that connection."""
MAX_CHUNK_BYTES = 65_536 + 1_024


NOBODY = User(role=UserRole.Anonymous)


@dataclass
class Person(User):
    """Who a session is of. ``tenants``: whose values it sees; None: all."""

    tenants: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One entry of ``users:``."""

    name: str
    password: str | None
    certificate: str | None
    """Thumbprint of the certificate that stands for him."""
    tenants: frozenset[str] | None


class Users:
    """Answers asyncua's question who that is."""

    def __init__(self, accounts: Iterable[Account], anonymous: bool, say: Say) -> None:
        self._accounts = list(accounts)
        self._anonymous = anonymous
        self._say = say

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Person | None:
        """``certificate``: of the user's token, else that of his application; he has proved either
        way that he holds the key.
        """
        if username is not None:
            for account in self._accounts:
                if account.name == username and account.password is not None:
                    given, right = str(password).encode(), account.password.encode()
                    if hmac.compare_digest(given, right):
                        return Person(UserRole.User, account.name, account.tenants)
            who = "".join(c if c.isprintable() else "?" for c in username)[:60]
            self._say("warning", "login_refused", f"user {who!r}: name or password is wrong")
            return None
        mark = certificates.thumbprint(certificate) if certificate else None
        for account in self._accounts:
            if mark is not None and account.certificate == mark:
                return Person(UserRole.User, account.name, account.tenants)
        if self._anonymous:
            return Person(UserRole.Anonymous, None, None)
        self._say("warning", "login_refused", "neither user nor a user's certificate was given")
        return None


class Policy(SecurityPolicyFactory):
    """A security policy for certificates on the list."""

    def __init__(self, of: SecurityPolicyFactory, trust: TrustList, say: Say) -> None:
        super().__init__(of.cls, of.mode, of.certificate, of.private_key)
        self._trust = trust
        self._say = say

    def create(self, peer_certificate: bytes | None) -> Any:
        """For one channel. Raises ServiceError."""
        if self.cls is not SecurityPolicyNone:
            refusal = self._trust.refusal(peer_certificate or b"")
            if refusal:
                self._refused(peer_certificate or b"", refusal)
                raise ServiceError(_C.BadSecurityChecksFailed)
        return super().create(peer_certificate)

    def _refused(self, certificate: bytes, refusal: str) -> None:
        who = certificates.subject(certificate)
        file = self._trust.keep_rejected(certificate)
        kept = f"; to trust it, move {file} to {self._trust.trusted}" if file else ""
        self._say("warning", "certificate_refused", f"certificate of {who}: {refusal}{kept}")


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
        """As asyncua's, without PKCS #1 v1.5, whose padding tells who asks often enough."""
        if token.EncryptionAlgorithm == "http://www.w3.org/2001/04/xmlenc#rsa-1_5":
            raise ServiceError(_C.BadSecurityPolicyRejected)
        name, password = super().decrypt_user_token(isession, token)
        return name or "", password

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
        subscriptions = self.subscription_service.subscriptions.values()
        return sum(len(s.monitored_item_srv._monitored_items) for s in subscriptions)

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
        for item in params.NodesToRead:
            if not self.sees(item.NodeId):
                item.NodeId = self._hidden()
        return await super().read(params)

    async def browse(self, params: ua.BrowseParameters) -> list[ua.BrowseResult]:
        """Likewise."""
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
        room = MAX_ITEMS - self.iserver.items
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


# SByte … Double, and Duration.
_NUMBERS = {*range(2, 12), 290}


class Processor(UaProcessor):
    """One connection's messages."""

    insecure = False
    session: Any

    async def process(self, header: Any, body: Any) -> Any:
        """What cannot be read, or comes on a channel that may not be, ends the connection; asyncua
        would leave the client waiting.
        """
        try:
            return await super().process(header, body)
        except Exception as e:
            code = getattr(e, "code", None) or _C.BadSecurityChecksFailed
            error = ua.ErrorMessage(ua.StatusCode(code), "")
            self._transport.write(uatcp_to_binary(ua.MessageType.Error, error))
            return False

    async def _process_message(self, typeid: Any, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        service = typeid.Identifier
        if service not in _SERVICES:
            raise ServiceError(_C.BadServiceUnsupported)
        policy = self._connection.security_policy
        if policy.URI == SecurityPolicyNone.URI and not self.insecure:
            if service not in _DISCOVERY:
                raise ServiceError(_C.BadSecurityPolicyRejected)
        elif service == _ACTIVATE:
            existing: Any = self.session or self.iserver.lookup_external_session(
                requesthdr.AuthenticationToken
            )
            if existing is None or existing.auth_token != requesthdr.AuthenticationToken:
                raise ServiceError(_C.BadSessionIdInvalid)
            if self.session is None and existing.certificate != policy.peer_certificate:
                raise ServiceError(_C.BadSecurityChecksFailed)
            return await self._activate(typeid, requesthdr, seqhdr, body)
        elif self.session is not None and requesthdr.AuthenticationToken not in (
            self.session.auth_token,
            ua.NodeId(),
        ):
            raise ServiceError(_C.BadSessionIdInvalid)
        before = self.session
        answer = await self._super_message(typeid, requesthdr, seqhdr, body)
        if isinstance(self.session, Session) and self.session is not before:
            self.session.certificate = policy.peer_certificate
        return answer

    async def _activate(self, *message: Any) -> Any:
        """asyncua hands session and subscriptions over to this connection before it asks who is
        there: where that fails, they go back.
        """
        before = self.session
        subscriptions = self.iserver.subscription_service.subscriptions.values()
        ways = [(s, s.pub_result_callback, s.pub_request_callback) for s in subscriptions]
        try:
            return await self._super_message(*message)
        except Exception as e:
            if before is None:
                self.session = None
                if self._session_watchdog_task is not None:
                    self._session_watchdog_task.cancel()
                for subscription, result, request in ways:
                    subscription.pub_result_callback = result
                    subscription.pub_request_callback = request
            await asyncio.sleep(LOGIN_PAUSE_S)
            if isinstance(e, InvalidSignature):
                raise ServiceError(_C.BadApplicationSignatureInvalid) from None
            raise

    async def _super_message(self, *arguments: Any) -> Any:
        return await super()._process_message(*arguments)


class Connection(OPCUAProtocol):
    """One TCP connection."""

    insecure = False
    processor: UaProcessor | None
    _buffer: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """With our processor."""
        super().connection_made(transport)
        if self.processor is not None:
            processor = Processor(self.iserver, self.transport, self.limits)
            processor.insecure = self.insecure
            processor.set_policies(self.policies)
            self.processor = processor

    def data_received(self, data: bytes) -> None:
        """A chunk that is longer than was agreed ends the connection before it fills the memory."""
        super().data_received(data)
        if len(self._buffer) > MAX_CHUNK_BYTES and self.transport is not None:
            self.transport.close()
            self._buffer = b""


def accounts(users: Iterable[Mapping[str, Any]], secret: Callable[[Any], str]) -> list[Account]:
    """As rendered. Raises ConfigError (a secret), ValueError (a certificate)."""
    found = []
    for user in users:
        mark = None
        if user["certificate"]:
            certificate = certificates.load(Path(user["certificate"]))
            mark = certificates.thumbprint(uacrypto.der_from_x509(certificate))
        tenants = user["locatarios"]
        found.append(
            Account(
                user["username"],
                secret(user["password"]) if user["password"] else None,
                mark,
                frozenset(tenants) if tenants is not None else None,
            )
        )
    return found
