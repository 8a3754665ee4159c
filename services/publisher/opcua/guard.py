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
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.security_policies import SecurityPolicyFactory, SecurityPolicyNone
from asyncua.server.binary_server_asyncio import OPCUAProtocol
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import uatcp_to_binary
from cryptography.exceptions import InvalidSignature

from services.opcua import certificates
from services.opcua.certificates import TrustList
from services.publisher.opcua.session import Session
from services.publisher.opcua.users import Say

_I = ua.ObjectIds
_C = ua.StatusCodes

_DISCOVERY = {
    _I.FindServersRequest_Encoding_DefaultBinary,
    _I.GetEndpointsRequest_Encoding_DefaultBinary,
    _I.CloseSecureChannelRequest_Encoding_DefaultBinary,
}
_ACTIVATE = _I.ActivateSessionRequest_Encoding_DefaultBinary
_CREATE = _I.CreateSessionRequest_Encoding_DefaultBinary
_SERVICES = _DISCOVERY | {
    _ACTIVATE,
    _CREATE,
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
LOGIN_PAUSE_S = 1.0
"""After a refused login, on that connection."""
MAX_CHUNK_BYTES = 65_536 + 1_024
MAX_UNREAD_BYTES, MAX_UNREAD_SIGNED_IN_BYTES = 2**20, 32 * 2**20
"""Answers that a client has asked for and does not fetch; with more its connection ends."""


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


class Processor(UaProcessor):
    """One connection's messages."""

    insecure = False
    session: Any

    async def process(self, header: Any, body: Any) -> Any:
        """What cannot be read, or comes on a channel that may not be, ends the connection; asyncua
        would leave the client waiting.
        """
        try:
            whole = header.ChunkType == ua.ChunkType.Single
            if not whole and not self._is_answered(self._connection.security_policy.URI):
                # The parts would be kept before anybody is asked who he is.
                raise ServiceError(_C.BadRequestTooLarge)
            return await super().process(header, body)
        except Exception as e:
            code = getattr(e, "code", None) or _C.BadSecurityChecksFailed
            error = ua.ErrorMessage(ua.StatusCode(code), "")
            self._transport.write(uatcp_to_binary(ua.MessageType.Error, error))
            return False

    def _is_answered(self, policy: str) -> bool:
        """More than which endpoints there are."""
        return self.insecure or policy != SecurityPolicyNone.URI

    async def _process_message(self, typeid: Any, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        service = typeid.Identifier
        if service not in _SERVICES:
            raise ServiceError(_C.BadServiceUnsupported)
        policy = self._connection.security_policy
        if not self._is_answered(policy.URI):
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
        if service == _CREATE and before is not None and not before.is_activated():
            # asyncua would forget it, and keep it for ever.
            await before.close_session()
            if self._session_watchdog_task is not None:
                self._session_watchdog_task.cancel()
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
            answer = await self._super_message(*message)
            self._transport.set_write_buffer_limits(MAX_UNREAD_SIGNED_IN_BYTES)
            return answer
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
    transport: asyncio.Transport | None
    clients: list[Connection]
    """All of the server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """With our processor. Where there are too many, the oldest without a session makes room:
        strangers must not keep those out who may sign in.
        """
        if len(self.clients) >= self.iserver.max_connections:
            idle = next((c for c in self.clients if not c.is_signed_in), None)
            if idle is not None:
                self.clients.remove(idle)
                idle.abort()
        super().connection_made(transport)
        self._chunks = bytearray()
        if self.processor is not None and self.transport is not None:
            self.transport.set_write_buffer_limits(MAX_UNREAD_BYTES)
            processor = Processor(self.iserver, self.transport, self.limits)
            processor.insecure = self.insecure
            processor.set_policies(self.policies)
            self.processor = processor

    @property
    def is_signed_in(self) -> bool:
        """Whether it has a session that is somebody's."""
        session = self.processor.session if self.processor is not None else None
        return session is not None and session.is_activated()

    def abort(self) -> None:
        """At once: who does not read would keep a connection that is only closed for ever."""
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The client does not fetch its answers."""
        self.abort()

    async def _activation_watchdog(self) -> None:
        """asyncua looks once, and closes; here also whose session has ended meanwhile."""
        while True:
            await asyncio.sleep(self.iserver.max_pending_activation_seconds)
            if not self.is_signed_in:
                self.abort()
                return

    def data_received(self, data: bytes) -> None:
        """Chunk by chunk: asyncua keeps all that came with each of them. One that is longer than
        was agreed ends the connection before it fills the memory.
        """
        chunks = self._chunks
        chunks += data
        while len(chunks) >= 8 and self.transport is not None:
            size = int.from_bytes(chunks[4:8], "little")
            if not 8 < size <= MAX_CHUNK_BYTES:
                self.abort()
            if len(chunks) < size or self.transport.is_closing():
                return
            super().data_received(bytes(chunks[:size]))
            del chunks[:size]
