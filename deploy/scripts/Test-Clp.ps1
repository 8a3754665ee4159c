<#
.SYNOPSIS
Testa o caminho até um CLP Siemens S7: TCP, COTP (rack e slot) e o PDU concedido. Só lê, nada escreve.
.DESCRIPTION
Diz em que passo a conexão para e o que corrigir. Termina com 0 se tudo funciona, com 1 se não.
.PARAMETER Endereco
Endereço IP ou nome do CLP.
.PARAMETER Porta
Porta do ISO-on-TCP; normalmente 102.
.PARAMETER Rack
Rack da CPU; normalmente 0.
.PARAMETER Slot
Slot da CPU: 1 no S7-1200/1500, 2 no S7-300.
.PARAMETER LimiteMs
Quanto esperar por cada resposta, em milissegundos.
.EXAMPLE
.\Test-Clp.ps1 -Endereco 192.168.0.10 -Slot 1
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][string]$Endereco,
    [ValidateRange(1, 65535)][int]$Porta = 102,
    [ValidateRange(0, 7)][int]$Rack = 0,
    [ValidateRange(0, 31)][int]$Slot = 1,
    [ValidateRange(100, 60000)][int]$LimiteMs = 3000
)
. (Join-Path $PSScriptRoot 'PlcEdge.Comum.ps1')

# Um telegrama inteiro (TPKT: versão, reserva, tamanho em dois bytes).
function Receive-Tpkt([IO.Stream]$Fluxo) {
    $cabeca = Read-Bytes $Fluxo 4
    $tamanho = $cabeca[2] * 256 + $cabeca[3]
    if ($cabeca[0] -ne 3 -or $tamanho -lt 7) { throw 'a resposta não é ISO-on-TCP: há mesmo um CLP nesta porta?' }
    return , (Read-Bytes $Fluxo ($tamanho - 4))
}

$cliente = $null
try {
    try {
        $cliente = Connect-Tcp $Endereco $Porta $LimiteMs
    } catch {
        Write-Falha "TCP ${Endereco}:${Porta}: $($_.Exception.Message)" 'confira cabo, IP e máscara do notebook, VLAN e firewall; o CLP está ligado?'
        exit 1
    }
    Write-Ok "TCP ${Endereco}:$Porta aceita conexões"
    $fluxo = $cliente.GetStream()

    # Pedido de conexão COTP; o TSAP remoto 0x02xx é "OP" com rack e slot.
    $tsap = [byte](($Rack -shl 5) -bor $Slot)
    [byte[]]$pedido = 3, 0, 0, 22, 17, 0xE0, 0, 0, 0, 1, 0, 0xC0, 1, 10, 0xC1, 2, 1, 0, 0xC2, 2, 2, $tsap
    try {
        $fluxo.Write($pedido, 0, $pedido.Length)
        $resposta = Receive-Tpkt $fluxo
        if ($resposta[1] -ne 0xD0) { throw ('recusado (TPDU 0x{0:X2})' -f $resposta[1]) }
    } catch {
        Write-Falha "COTP com rack $Rack, slot ${Slot}: $($_.Exception.Message)" 'tente -Slot 1 (S7-1200/1500) ou -Slot 2 (S7-300); se nenhum serve, todas as conexões do CLP podem estar ocupadas'
        exit 1
    }
    Write-Ok "COTP aceito com rack $Rack, slot $Slot"

    # Setup communication: uma tarefa paralela, PDU de 960 bytes.
    [byte[]]$pedido = 3, 0, 0, 25, 2, 0xF0, 0x80, 0x32, 1, 0, 0, 0, 1, 0, 8, 0, 0, 0xF0, 0, 0, 1, 0, 1, 3, 0xC0
    try {
        $fluxo.Write($pedido, 0, $pedido.Length)
        $resposta = Receive-Tpkt $fluxo
        if ($resposta.Length -lt 23 -or $resposta[4] -ne 3) { throw 'a resposta não é do protocolo S7' }
        if ($resposta[13] -ne 0 -or $resposta[14] -ne 0) { throw ('erro 0x{0:X2}{1:X2}' -f $resposta[13], $resposta[14]) }
    } catch {
        Write-Falha "S7: $($_.Exception.Message)" 'no TIA Portal: propriedades da CPU, Proteção, permitir acesso PUT/GET'
        exit 1
    }
    $pdu = $resposta[21] * 256 + $resposta[22]
    Write-Ok "S7 aceito: PDU de $pdu bytes"
    Write-Host 'O acesso aos DBs é conferido na caixa: plc-edge probe e plc-edge read.'
    exit 0
} finally {
    if ($cliente) { $cliente.Close() }
}
