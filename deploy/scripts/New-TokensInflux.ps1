<#
.SYNOPSIS
Cria um token de escrita e um de leitura no InfluxDB 2 para os baldes de uma organização.
.DESCRIPTION
O token de administração é perguntado sem eco, ou lido de um arquivo. Os novos vão cada um para um
arquivo que só o usuário atual pode ler; nunca para a tela. Um arquivo que já existe não é tocado.
.PARAMETER Url
Endereço do InfluxDB, por exemplo https://influx.exemplo.com:8086
.PARAMETER Organizacao
Organização do locatário.
.PARAMETER Balde
Baldes a que os tokens dão acesso.
.PARAMETER Pasta
Onde gravar escrita-<organização>.token e leitura-<organização>.token.
.PARAMETER ArquivoToken
Arquivo com o token de administração; sem ele, o script pergunta.
.EXAMPLE
.\New-TokensInflux.ps1 -Url https://influx.exemplo.com:8086 -Organizacao acme -Pasta .\tokens
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^https?://')][string]$Url,
    [Parameter(Mandatory = $true)][ValidatePattern('^[A-Za-z0-9_-]+$')][string]$Organizacao,
    [string[]]$Balde = @('processo_raw', 'processo', 'processo_1m', 'processo_1h'),
    [Parameter(Mandatory = $true)][string]$Pasta,
    [string]$ArquivoToken
)
. (Join-Path $PSScriptRoot 'PlcEdge.Comum.ps1')

if ($Url -notlike 'https://*') { Write-Warning 'sem HTTPS os tokens passam em claro pela rede' }
if (-not (Test-Path -LiteralPath $Pasta)) { [void](New-Item -ItemType Directory -Path $Pasta) }
$token = Read-Segredo $ArquivoToken 'Token de administração do InfluxDB'

try {
    $nome = [Uri]::EscapeDataString($Organizacao)
    $org = @((Invoke-Influx $Url $token 'Get' "/api/v2/orgs?org=$nome" $null).orgs)[0].id
    $ids = foreach ($um in $Balde) {
        $achados = @((Invoke-Influx $Url $token 'Get' "/api/v2/buckets?orgID=$org&name=$([Uri]::EscapeDataString($um))" $null).buckets)
        if ($achados.Count -eq 0) { throw "a organização $Organizacao não tem o balde $um" }
        $achados[0].id
    }
} catch {
    Write-Falha "InfluxDB: $($_.Exception.Message)" '401: token de administração errado; 404: a organização não existe'
    exit 1
}

$direitos = @{ escrita = 'write'; leitura = 'read' }
foreach ($papel in 'escrita', 'leitura') {
    $arquivo = Join-Path $Pasta "$papel-$Organizacao.token"
    if (Test-Path -LiteralPath $arquivo) {
        Write-Host "       $arquivo já existe e fica como está; apague-o para criar outro token"
        continue
    }
    # Primeiro o arquivo fechado, depois o segredo dentro dele.
    [void](New-Item -ItemType File -Path $arquivo)
    if ($env:OS -eq 'Windows_NT') {
        icacls $arquivo /inheritance:r /grant:r "${env:USERDOMAIN}\${env:USERNAME}:F" | Out-Null
    } else {
        chmod 600 $arquivo
    }
    if ($LASTEXITCODE -ne 0) {
        Remove-Item -LiteralPath $arquivo
        Write-Falha "as permissões de $arquivo não puderam ser restringidas" 'use uma pasta local (NTFS)'
        exit 1
    }
    $corpo = @{
        orgID       = $org
        description = "$papel de $Organizacao, por $env:USERNAME em $(Get-Date -Format 'yyyy-MM-dd')"
        permissions = @($ids | ForEach-Object { @{ action = $direitos[$papel]; resource = @{ type = 'buckets'; id = $_; orgID = $org } } })
    }
    try {
        $novo = Invoke-Influx $Url $token 'Post' '/api/v2/authorizations' $corpo
    } catch {
        Remove-Item -LiteralPath $arquivo
        Write-Falha "token de ${papel}: $($_.Exception.Message)" 'o token de administração precisa poder criar autorizações'
        exit 1
    }
    [IO.File]::WriteAllText((Resolve-Path -LiteralPath $arquivo).ProviderPath, $novo.token)
    Write-Ok "token de $papel em $arquivo"
}
exit 0
