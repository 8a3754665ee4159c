"""Every refusal of the API: RFC 9457 problem documents, in English and Portuguese."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
LANGUAGES = ("en", "pt")

# code -> (HTTP status, English title and detail, Portuguese title and detail).
_TEXTS: dict[str, tuple[int, tuple[str, str], tuple[str, str]]] = {
    "unauthenticated": (
        401,
        ("No valid key", "Send `Authorization: Bearer KEY` with a key that is still valid."),
        ("Sem chave válida", "Envie `Authorization: Bearer CHAVE` com uma chave ainda válida."),
    ),
    "forbidden": (
        403,
        ("Not allowed", "A key of role {role} may not do this; it needs one of: {needs}."),
        ("Não permitido", "Uma chave de papel {role} não pode fazer isto; é preciso: {needs}."),
    ),
    "claim-refused": (
        403,
        (
            "Code refused",
            "No box can be claimed with this code: it is mistyped, expired or replaced by a newer"
            " one. Ask the centre for another.",
        ),
        (
            "Código recusado",
            "Nenhuma caixa pode ser reivindicada com este código: foi digitado errado, venceu ou há"
            " um mais novo. Peça outro à central.",
        ),
    ),
    "tenant-suspended": (
        403,
        ("Tenant suspended", "{tenant} is suspended: nothing of it can be changed."),
        ("Locatário suspenso", "{tenant} está suspenso: nada dele pode ser alterado."),
    ),
    "not-found": (
        404,
        ("Not found", "There is no such thing here, or it is not yours."),
        ("Não encontrado", "Isto não existe aqui, ou não é seu."),
    ),
    "method-not-allowed": (
        405,
        ("Method not allowed", "This address does not know this method."),
        ("Método não permitido", "Este endereço não conhece este método."),
    ),
    "exists": (
        409,
        ("Already there", "{resource} {id} exists already."),
        ("Já existe", "{resource} {id} já existe."),
    ),
    "no-broker": (
        409,
        ("No broker", "central.yaml names no broker: accounts there are made by hand."),
        ("Sem broker", "central.yaml não diz qual é o broker: as contas dele se criam à mão."),
    ),
    "no-alerts": (
        409,
        ("No alert engine", "central.yaml does not say `alerts: true`: no rule is evaluated here."),
        (
            "Sem motor de alertas",
            "central.yaml não diz `alerts: true`: nenhuma regra é avaliada aqui.",
        ),
    ),
    "too-many-parts": (
        409,
        ("Too many", "A tenant has at most {limit} of {resource}."),
        ("Demais", "Um locatário tem no máximo {limit} de {resource}."),
    ),
    "reserved": (
        409,
        ("Reserved name", "{id} is the platform's own; choose another name."),
        ("Nome reservado", "{id} é da própria plataforma; escolha outro nome."),
    ),
    "quota-devices": (
        409,
        (
            "Plan full",
            "Plan {plan} allows {limit} devices and {used} are registered: remove one, or change"
            " the plan.",
        ),
        (
            "Plano cheio",
            "O plano {plan} permite {limit} CLPs e {used} estão cadastrados: remova um ou mude de"
            " plano.",
        ),
    ),
    "plan-too-small": (
        409,
        (
            "Plan too small",
            "Plan {plan} allows {limit} {what}, the tenant has {used}.",
        ),
        ("Plano pequeno demais", "O plano {plan} permite {limit} {what}, o locatário tem {used}."),
    ),
    "in-use": (
        409,
        ("In use", "{resource} {id} is still used by {by}."),
        ("Em uso", "{resource} {id} ainda é usado por {by}."),
    ),
    "device-elsewhere": (
        409,
        ("Device of another box", "Device {id} belongs to box {site}; move it there first."),
        ("CLP de outra caixa", "O CLP {id} pertence à caixa {site}; mova-o antes."),
    ),
    "tenant-state": (
        409,
        ("Wrong state", "{tenant} is {state}; this needs: {needs}."),
        ("Estado errado", "{tenant} está em {state}; isto exige: {needs}."),
    ),
    "credential-revoked": (
        409,
        ("Credential revoked", "{id} is revoked for good; make a new credential."),
        ("Credencial revogada", "{id} foi revogada de vez; crie outra credencial."),
    ),
    "last-operator": (
        409,
        ("Last operator", "This is the last operator's key: make another one first."),
        ("Último operador", "Esta é a última chave de operador: crie outra antes."),
    ),
    "certificate-renewal": (
        409,
        (
            "Renewed by the box",
            "{id} is a certificate: its box renews it by itself. Revoke it, and claim the box anew,"
            " where its key was lost.",
        ),
        (
            "Renovado pela caixa",
            "{id} é um certificado: a própria caixa o renova. Se a chave foi perdida, revogue-o e"
            " reivindique a caixa de novo.",
        ),
    ),
    "rollout-active": (
        409,
        (
            "Roll-out under way",
            "Box {site} is part of roll-out {rollout}, which has not ended: wait, or roll it back.",
        ),
        (
            "Implantação em curso",
            "A caixa {site} faz parte da implantação {rollout}, que não terminou: espere ou volte"
            " atrás.",
        ),
    ),
    "rollout-state": (
        409,
        ("Wrong state", "Roll-out {rollout} is {state}; this needs: {needs}."),
        ("Estado errado", "A implantação {rollout} está em {state}; isto exige: {needs}."),
    ),
    "claim-used": (
        410,
        ("Code used", "A box has been claimed with this code already: ask the centre for another."),
        ("Código já usado", "Uma caixa já foi reivindicada com este código: peça outro à central."),
    ),
    "version-conflict": (
        412,
        ("Changed meanwhile", "The ETag is now {etag}: read it again, then change it."),
        ("Alterado entretanto", "O ETag agora é {etag}: leia de novo e então altere."),
    ),
    "too-large": (
        413,
        ("Too large", "A request holds at most {limit} bytes."),
        ("Grande demais", "Um pedido tem no máximo {limit} bytes."),
    ),
    "invalid-request": (
        422,
        ("Invalid request", "The request does not have the form that /openapi.json describes."),
        ("Pedido inválido", "O pedido não tem a forma que /openapi.json descreve."),
    ),
    "csr-refused": (
        422,
        ("Request refused", "The certificate request cannot be used: {why}."),
        ("Pedido de certificado recusado", "O pedido de certificado não serve: {why}."),
    ),
    "idempotency-reused": (
        422,
        (
            "Key used before",
            "This Idempotency-Key was used for another request, or with another API key.",
        ),
        (
            "Chave já usada",
            "Esta Idempotency-Key foi usada em outro pedido, ou com outra chave da API.",
        ),
    ),
    "invalid-config": (
        422,
        ("Configuration refused", "The box's check finds {count} mistakes; see `problems`."),
        ("Configuração recusada", "O check da caixa acha {count} erros; veja `problems`."),
    ),
    "invalid-alert": (
        422,
        ("Refused", "The check of `alerts:` finds {count} mistakes; see `problems`."),
        ("Recusado", "O check de `alerts:` acha {count} erros; veja `problems`."),
    ),
    "quota-points": (
        422,
        (
            "More points than the plan",
            "Up to {estimated} points a minute ({arithmetic}), and plan {plan} allows {limit}: scan"
            " slower, read fewer fields, or change the plan.",
        ),
        (
            "Mais pontos que o plano",
            "Até {estimated} pontos por minuto ({arithmetic}), e o plano {plan} permite {limit}:"
            " leia mais devagar, leia menos campos ou mude de plano.",
        ),
    ),
    "too-many": (
        429,
        ("Too many attempts", "Try again in {retry_after_s} s."),
        ("Tentativas demais", "Tente de novo em {retry_after_s} s."),
    ),
    "internal": (
        500,
        ("Our mistake", "Something failed here; the log of control_plane says what."),
        ("Erro nosso", "Algo falhou aqui; o log de control_plane diz o quê."),
    ),
    "alerts-away": (
        503,
        ("Alert engine away", "The alert engine could not be asked: {reason}."),
        ("Motor de alertas fora", "O motor de alertas não pôde ser consultado: {reason}."),
    ),
    "busy": (
        503,
        ("Busy", "Too many requests of this kind at once; try again in {retry_after_s} s."),
        (
            "Ocupado",
            "Pedidos demais deste tipo ao mesmo tempo; tente de novo em {retry_after_s} s.",
        ),
    ),
    "alerts-unanswered": (
        503,
        (
            "Alert engine silent",
            "The alert engine was asked and has not answered within {wait_s} s. A change that it"
            " was asked for may still be made: look at the list of alarms, or repeat it.",
        ),
        (
            "Motor de alertas calado",
            "O motor de alertas foi consultado e não respondeu em {wait_s} s. Uma mudança pedida"
            " ainda pode ser feita: veja a lista de alarmes ou repita o pedido.",
        ),
    ),
    "unavailable": (
        503,
        ("Database away", "The database does not answer; repeat the request in a moment."),
        ("Banco fora", "O banco de dados não responde; repita o pedido em instantes."),
    ),
}


class Refusal(Exception):
    """A request that is refused: ``code`` is one stable word, ``members`` the numbers behind it."""

    def __init__(self, code: str, **members: Any) -> None:
        self.code = code
        self.status = _TEXTS[code][0]
        self.members = members
        super().__init__(code)


def language(accepted: str) -> str:
    """``en`` or ``pt``, whichever an Accept-Language header (RFC 9110) likes better."""
    best, weight = "en", 0.0
    for part in accepted.split(","):
        name, _, parameter = part.strip().partition(";")
        short = name.strip().lower()[:2]
        try:
            quality = float(parameter.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if short in LANGUAGES and quality > weight:
            best, weight = short, quality
    return best


def document(refusal: Refusal, accepted: str, path: str) -> dict[str, Any]:
    """The problem document in the caller's language."""
    status, *texts = _TEXTS[refusal.code]
    title, detail = texts[LANGUAGES.index(language(accepted))]
    return {
        "type": f"urn:plc-edge:problem:{refusal.code}",
        "title": title,
        "status": status,
        "detail": detail.format(**refusal.members),
        "instance": path,
        **refusal.members,
    }


def response(refusal: Refusal, headers: Mapping[str, str], path: str) -> Response:
    """The HTTP answer; ``headers`` are the request's."""
    accepted = headers.get("accept-language", "")
    body = json.dumps(document(refusal, accepted, path), ensure_ascii=False, default=str)
    more = {"content-language": language(accepted), "cache-control": "no-store"}
    if refusal.status == 401:
        more["www-authenticate"] = 'Bearer realm="plc-edge"'
    if refusal.status == 503:
        more["retry-after"] = "1"
    if refusal.status == 429:
        more["retry-after"] = str(refusal.members["retry_after_s"])
    return Response(body.encode("utf-8", "replace"), refusal.status, more, MEDIA_TYPE)
