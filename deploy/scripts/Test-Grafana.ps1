<#
.SYNOPSIS
Testa o Grafana: saúde, e com uma conta também as fontes de dados.
.DESCRIPTION
Termina com 0 se tudo funciona, com 1 se não.
.PARAMETER Url
Endereço do Grafana, por exemplo https://grafana.exemplo.com
.PARAMETER Entrar
Pergunta conta e senha e testa cada fonte de dados da organização.
.EXAMPLE
.\Test-Grafana.ps1 -Url https://grafana.exemplo.com -Entrar
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^https?://')][string]$Url,
    [switch]$Entrar
)
. (Join-Path $PSScriptRoot 'PlcEdge.Comum.ps1')

$base = $Url.TrimEnd('/')
try {
    $saude = Invoke-RestMethod -Uri "$base/api/health" -UseBasicParsing -TimeoutSec 15
} catch {
    Write-Falha "Grafana: $($_.Exception.Message)" 'confira o endereço, o firewall, o certificado e se o serviço está ligado'
    exit 1
}
if ($saude.database -ne 'ok') {
    Write-Falha "o banco interno do Grafana diz: $($saude.database)" 'veja o log do Grafana e o espaço em disco'
    exit 1
}
Write-Ok 'Grafana responde e o banco interno está bem'
if (-not $Entrar) { exit 0 }
if ($base -notlike 'https://*') { Write-Warning 'sem HTTPS a senha passa em claro pela rede' }

$conta = Get-Credential -Message 'Conta do Grafana'
$par = '{0}:{1}' -f $conta.UserName, $conta.GetNetworkCredential().Password
$cabecalhos = @{ Authorization = 'Basic ' + [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($par)) }
try {
    $fontes = @(Invoke-RestMethod -Uri "$base/api/datasources" -Headers $cabecalhos -UseBasicParsing -TimeoutSec 15)
} catch {
    Write-Falha "a conta não entra: $($_.Exception.Message)" '401: conta ou senha; 403: a conta precisa ver as fontes de dados'
    exit 1
}
if ($fontes.Count -eq 0) {
    Write-Falha 'não há fonte de dados nesta organização' 'no servidor: plc-edge infra render e a pasta provisioning do Grafana'
    exit 1
}
$falhas = 0
foreach ($fonte in $fontes) {
    try {
        $resultado = Invoke-RestMethod -Uri "$base/api/datasources/uid/$($fonte.uid)/health" -Headers $cabecalhos -UseBasicParsing -TimeoutSec 30
        Write-Ok "fonte $($fonte.name): $($resultado.message)"
    } catch {
        $falhas++
        Write-Falha "fonte $($fonte.name): $($_.Exception.Message)" 'confira o token e o endereço do InfluxDB nesta fonte'
    }
}
if ($falhas) { exit 1 }
exit 0
