<#
.SYNOPSIS
Testa um broker MQTT: TCP, TLS (certificado e nome) e a entrada com uma conta.
.DESCRIPTION
A senha é perguntada sem eco, ou lida de um arquivo; nunca vai na linha de comando.
Use uma conta de diagnóstico (doctor-<site>): com a conta da caixa, dois clientes podem se derrubar.
Termina com 0 se tudo funciona, com 1 se não.
.PARAMETER Servidor
Nome do broker, como está no certificado.
.PARAMETER Porta
Porta TLS; normalmente 8883.
.PARAMETER Conta
Conta MQTT.
.PARAMETER ArquivoSenha
Arquivo com a senha na primeira linha; sem ele, o script pergunta.
.PARAMETER ArquivoCa
Certificado da CA da planta (PEM); sem ele, valem as CAs do Windows.
.PARAMETER LimiteMs
Quanto esperar por cada resposta, em milissegundos.
.EXAMPLE
.\Test-Broker.ps1 -Servidor broker.exemplo.com -Conta doctor-planta-sp -ArquivoCa .\ca.pem
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][string]$Servidor,
    [ValidateRange(1, 65535)][int]$Porta = 8883,
    [Parameter(Mandatory = $true)][string]$Conta,
    [string]$ArquivoSenha,
    [string]$ArquivoCa,
    [ValidateRange(100, 60000)][int]$LimiteMs = 5000
)
. (Join-Path $PSScriptRoot 'PlcEdge.Comum.ps1')

$senha = Read-Segredo $ArquivoSenha "Senha de $Conta"
$cliente = $null
try {
    try {
        $cliente = Connect-Tcp $Servidor $Porta $LimiteMs
    } catch {
        Write-Falha "TCP ${Servidor}:${Porta}: $($_.Exception.Message)" 'confira o nome (DNS), a rota e o firewall'
        exit 1
    }
    Write-Ok "TCP ${Servidor}:$Porta aceita conexões"
    try {
        $tls = Connect-Tls $cliente $Servidor $ArquivoCa
    } catch {
        Write-Falha "TLS: $($_.Exception.GetBaseException().Message)" 'confira a CA (-ArquivoCa), o nome no certificado, a validade e o relógio deste notebook'
        exit 1
    }
    $fim = ([DateTime]$tls.RemoteCertificate.GetExpirationDateString())
    Write-Ok "TLS aceito ($($tls.SslProtocol)); o certificado vale até $($fim.ToString('yyyy-MM-dd'))"
    if ($fim -lt (Get-Date).AddDays(30)) { Write-Warning 'o certificado do broker acaba em menos de 30 dias' }
    try {
        $codigo = Connect-Mqtt $tls $Conta $senha
    } catch {
        Write-Falha "MQTT: $($_.Exception.Message)" 'o broker encerrou sem responder: veja o log dele'
        exit 1
    }
    if ($codigo -ne 0) {
        Write-Falha "MQTT: $(Get-MqttMotivo $codigo)" 'confira conta e senha; no broker: deploy/scripts/broker-users.sh'
        exit 1
    }
    Write-Ok "MQTT aceita a conta $Conta"
    Send-MqttPacote $tls 0xE0 @()
    exit 0
} finally {
    if ($cliente) { $cliente.Close() }
}
