<#
.SYNOPSIS
Mostra os últimos pontos de um CLP no InfluxDB 2.
.DESCRIPTION
Usa um token de leitura, perguntado sem eco ou lido de um arquivo. Termina com 1 se não há pontos.
.PARAMETER Url
Endereço do InfluxDB, por exemplo https://influx.exemplo.com:8086
.PARAMETER Organizacao
Organização do InfluxDB: cada locatário tem a sua.
.PARAMETER Balde
processo_raw, processo, processo_1m ou processo_1h.
.PARAMETER Clp
Só este CLP; sem ele, todos.
.PARAMETER Minutos
Quanto olhar para trás.
.PARAMETER ArquivoToken
Arquivo com o token na primeira linha; sem ele, o script pergunta.
.EXAMPLE
.\Get-PontosRecentes.ps1 -Url https://influx.exemplo.com:8086 -Organizacao acme -Clp prensa-01 | Format-Table
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^https?://')][string]$Url,
    [Parameter(Mandatory = $true)][string]$Organizacao,
    [ValidatePattern('^[a-z0-9_]+$')][string]$Balde = 'processo',
    [ValidatePattern('^[a-z0-9][a-z0-9_-]{1,31}$')][string]$Clp,
    [ValidateRange(1, 10080)][int]$Minutos = 5,
    [string]$ArquivoToken
)
. (Join-Path $PSScriptRoot 'PlcEdge.Comum.ps1')

# Nem toda tabela tem todas as colunas (machine só onde registros se repetem).
function Get-Campo($Ponto, [string]$Nome) {
    if ($Ponto.PSObject.Properties[$Nome]) { return $Ponto.$Nome }
    return ''
}

$token = Read-Segredo $ArquivoToken "Token de leitura de $Organizacao"
$filtro = ''
if ($Clp) { $filtro = "|> filter(fn: (r) => r.plc_id == `"$Clp`")" }
$flux = "from(bucket: `"$Balde`") |> range(start: -${Minutos}m) $filtro |> last()"
$pedido = @{
    Uri             = $Url.TrimEnd('/') + '/api/v2/query?org=' + [Uri]::EscapeDataString($Organizacao)
    Method          = 'Post'
    Headers         = @{ Authorization = "Token $token"; Accept = 'application/csv' }
    ContentType     = 'application/vnd.flux'
    Body            = $flux
    UseBasicParsing = $true
    TimeoutSec      = 30
}
try {
    $resposta = Invoke-WebRequest @pedido
} catch {
    Write-Falha "InfluxDB: $($_.Exception.Message)" '401: token errado; 404: organização ou balde; sem resposta: endereço, firewall ou certificado'
    exit 1
}
$texto = $resposta.Content
if ($texto -is [byte[]]) { $texto = [Text.Encoding]::UTF8.GetString($texto) }
# Cada tabela do CSV traz o seu cabeçalho, depois de uma linha vazia.
$pontos = @($texto -split '(?:\r?\n){2,}' | Where-Object { $_.Trim() } | ForEach-Object { $_.Trim() | ConvertFrom-Csv })
if ($pontos.Count -eq 0) {
    Write-Falha "nenhum ponto em $Balde nos últimos $Minutos minutos" 'siga o caminho: plc-edge status na caixa, Send-MensagemTeste.ps1 no broker, o log do Telegraf'
    exit 1
}
$linhas = foreach ($ponto in $pontos) {
    New-Object PSObject -Property ([ordered]@{
            Quando  = ([DateTime](Get-Campo $ponto '_time')).ToLocalTime()
            Clp     = Get-Campo $ponto 'plc_id'
            Maquina = Get-Campo $ponto 'machine'
            Medicao = Get-Campo $ponto '_measurement'
            Campo   = Get-Campo $ponto '_field'
            Valor   = Get-Campo $ponto '_value'
        })
}
$linhas | Sort-Object -Property 'Clp', 'Maquina', 'Campo'
exit 0
