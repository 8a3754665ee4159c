<#
.SYNOPSIS
Publica uma mensagem sintética, para seguir o caminho broker, Telegraf, InfluxDB, Grafana sem CLP.
.DESCRIPTION
A mensagem leva o grupo "teste" e o único campo "teste_conectividade": não se mistura com valores do
processo. A conta precisa de permissão de escrita no tópico (a conta doctor-<site> tem).
Telegraf só aceita as medições da configuração: use uma delas em -Medicao.
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
.PARAMETER Locatario
Locatário, como na configuração.
.PARAMETER Clp
Identificador do CLP, como na configuração.
.PARAMETER Medicao
Medição de destino no InfluxDB.
.PARAMETER LimiteMs
Quanto esperar por cada resposta, em milissegundos.
.EXAMPLE
.\Send-MensagemTeste.ps1 -Servidor broker.exemplo.com -Conta doctor-planta-sp -Locatario acme -Clp prensa-01 -ArquivoCa .\ca.pem
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][string]$Servidor,
    [ValidateRange(1, 65535)][int]$Porta = 8883,
    [Parameter(Mandatory = $true)][string]$Conta,
    [string]$ArquivoSenha,
    [string]$ArquivoCa,
    [Parameter(Mandatory = $true)][ValidatePattern('^[a-z0-9][a-z0-9_-]{1,31}$')][string]$Locatario,
    [Parameter(Mandatory = $true)][ValidatePattern('^[a-z0-9][a-z0-9_-]{1,31}$')][string]$Clp,
    [ValidatePattern('^[A-Za-z0-9_-]+$')][string]$Medicao = 's7_db1',
    [ValidateRange(100, 60000)][int]$LimiteMs = 5000
)
. (Join-Path $PSScriptRoot 'PlcEdge.Comum.ps1')

$senha = Read-Segredo $ArquivoSenha "Senha de $Conta"
$agora = [int64]([DateTime]::UtcNow - [DateTime]'1970-01-01').TotalMilliseconds
$mensagem = ConvertTo-Json -Compress -Depth 4 ([ordered]@{
        v            = 1
        site         = 'teste'
        locatario_id = $Locatario
        plc_id       = $Clp
        ip           = '0.0.0.0'
        group        = 'teste'
        measurement  = $Medicao
        ts           = $agora
        epoch        = $agora
        seq          = 1
        quality      = 'good'
        latency_ms   = 0
        values       = @{ teste_conectividade = 1.0 }
    })
$topico = "plc/$Locatario/$Clp"
$cliente = $null
try {
    $cliente = Connect-Tcp $Servidor $Porta $LimiteMs
    $tls = Connect-Tls $cliente $Servidor $ArquivoCa
    $codigo = Connect-Mqtt $tls $Conta $senha
    if ($codigo -ne 0) { throw "o broker recusa a conta ${Conta}: $(Get-MqttMotivo $codigo)" }
    $codigo = Publish-Mqtt $tls $topico $mensagem
    Send-MqttPacote $tls 0xE0 @()
} catch {
    Write-Falha "$($_.Exception.GetBaseException().Message)" 'Test-Broker.ps1 diz em que passo a conexão para'
    exit 1
} finally {
    if ($cliente) { $cliente.Close() }
}
switch ($codigo) {
    0 { Write-Ok "publicada em ${topico}: $mensagem"; exit 0 }
    0x10 {
        Write-Falha "publicada em $topico, mas ninguém assina" 'o Telegraf está ligado? Veja o log dele'
        exit 1
    }
    default {
        Write-Falha "${topico}: $(Get-MqttMotivo $codigo)" 'confira o ACL desta conta no broker'
        exit 1
    }
}
