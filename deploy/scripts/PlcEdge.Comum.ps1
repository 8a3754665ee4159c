# Funções comuns dos scripts do notebook do técnico. Não execute: os outros scripts carregam este.
# Windows PowerShell 5.1 ou PowerShell 7. Senhas e tokens nunca vão na linha de comando.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
# O Windows PowerShell 5.1 ainda oferece TLS 1.0 se ninguém disser outra coisa.
[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12

function Write-Ok([string]$Texto) { Write-Host "OK     $Texto" -ForegroundColor Green }
function Write-Falha([string]$Texto, [string]$Correcao) {
    Write-Host "FALHA  $Texto" -ForegroundColor Red
    if ($Correcao) { Write-Host "       Correção: $Correcao" }
}

# Segredo de um arquivo (primeira linha) ou, sem arquivo, perguntado sem eco.
function Read-Segredo([string]$Arquivo, [string]$Pergunta) {
    if ($Arquivo) {
        $linha = Get-Content -LiteralPath $Arquivo -TotalCount 1
        if (-not $linha) { throw "O arquivo $Arquivo está vazio; ponha nele só o segredo, em uma linha." }
        return ([string]$linha).Trim()
    }
    $seguro = Read-Host -Prompt $Pergunta -AsSecureString
    return (New-Object System.Net.NetworkCredential('', $seguro)).Password
}

function Connect-Tcp([string]$Servidor, [int]$Porta, [int]$LimiteMs) {
    $cliente = New-Object System.Net.Sockets.TcpClient
    $espera = $cliente.BeginConnect($Servidor, $Porta, $null, $null)
    if (-not $espera.AsyncWaitHandle.WaitOne($LimiteMs)) {
        $cliente.Close()
        throw "sem resposta de ${Servidor}:$Porta em $LimiteMs ms"
    }
    try { $cliente.EndConnect($espera) } catch { $cliente.Close(); throw }
    $cliente.ReceiveTimeout = $LimiteMs
    $cliente.SendTimeout = $LimiteMs
    return $cliente
}

# Exatamente $Quantos bytes; um fluxo TCP entrega em pedaços.
function Read-Bytes([IO.Stream]$Fluxo, [int]$Quantos) {
    $dados = New-Object byte[] $Quantos
    $lidos = 0
    while ($lidos -lt $Quantos) {
        $n = $Fluxo.Read($dados, $lidos, $Quantos - $lidos)
        if ($n -le 0) { throw "o outro lado encerrou a conexão depois de $lidos de $Quantos bytes" }
        $lidos += $n
    }
    return , $dados
}

# TLS com a CA do arquivo (PEM), ou com as do Windows. O nome do certificado é sempre conferido.
function Connect-Tls([Net.Sockets.TcpClient]$Cliente, [string]$Servidor, [string]$ArquivoCa) {
    $conferir = $null
    if ($ArquivoCa) {
        $caminho = (Resolve-Path -LiteralPath $ArquivoCa).ProviderPath
        $ca = New-Object System.Security.Cryptography.X509Certificates.X509Certificate2($caminho)
        $conferir = {
            param($origem, $certificado, $cadeia, $erros)
            if (($erros -band -bnot [Net.Security.SslPolicyErrors]::RemoteCertificateChainErrors) -ne 0) {
                return $false
            }
            $propria = New-Object System.Security.Cryptography.X509Certificates.X509Chain
            [void]$propria.ChainPolicy.ExtraStore.Add($ca)
            $propria.ChainPolicy.RevocationMode = 'NoCheck'
            # A CA da planta não está no Windows; que a raiz é ela confere-se na linha seguinte.
            $propria.ChainPolicy.VerificationFlags = 'AllowUnknownCertificateAuthority'
            $folha = New-Object System.Security.Cryptography.X509Certificates.X509Certificate2($certificado)
            if (-not $propria.Build($folha)) { return $false }
            $raiz = $propria.ChainElements[$propria.ChainElements.Count - 1].Certificate
            return $raiz.Thumbprint -eq $ca.Thumbprint
        }.GetNewClosure()
    }
    $tls = New-Object System.Net.Security.SslStream($Cliente.GetStream(), $false, [Net.Security.RemoteCertificateValidationCallback]$conferir)
    $tls.AuthenticateAsClient($Servidor, $null, [Security.Authentication.SslProtocols]::Tls12, $false)
    return $tls
}

# -- MQTT 5: o bastante para entrar e publicar. (O 3.1.1 não diz quando o ACL recusa.) --

function ConvertTo-MqttTexto([string]$Texto) {
    $dados = [Text.Encoding]::UTF8.GetBytes($Texto)
    return , ([byte[]]@([byte]($dados.Length -shr 8), [byte]($dados.Length -band 255)) + $dados)
}

function Send-MqttPacote([IO.Stream]$Fluxo, [byte]$Tipo, [byte[]]$Corpo) {
    $tamanho = @()
    $resto = $Corpo.Length
    do {
        $digito = $resto % 128
        $resto = $resto -shr 7
        if ($resto -gt 0) { $digito = $digito -bor 128 }
        $tamanho += [byte]$digito
    } while ($resto -gt 0)
    [byte[]]$pacote = @($Tipo) + $tamanho + $Corpo
    $Fluxo.Write($pacote, 0, $pacote.Length)
    $Fluxo.Flush()
}

function Receive-MqttPacote([IO.Stream]$Fluxo) {
    $tipo = (Read-Bytes $Fluxo 1)[0]
    $tamanho = 0
    $fator = 1
    do {
        $digito = (Read-Bytes $Fluxo 1)[0]
        $tamanho += ($digito -band 127) * $fator
        $fator *= 128
    } while ($digito -band 128)
    $corpo = [byte[]]@()
    if ($tamanho -gt 0) { $corpo = Read-Bytes $Fluxo $tamanho }
    return @{ Tipo = $tipo; Corpo = $corpo }
}

$MqttMotivos = @{
    0x84 = 'o broker não fala MQTT 5'
    0x85 = 'identificador de cliente recusado'
    0x86 = 'usuário ou senha errados'
    0x87 = 'não autorizado (ACL)'
    0x88 = 'broker indisponível'
    0x8A = 'conta banida'
    0x90 = 'nome de tópico inválido'
    0x97 = 'cota excedida'
    0x99 = 'formato de mensagem inválido'
}

function Get-MqttMotivo([int]$Codigo) {
    if ($MqttMotivos.ContainsKey($Codigo)) { return $MqttMotivos[$Codigo] }
    return ('código 0x{0:X2}' -f $Codigo)
}

# Entra com a conta; devolve o código do CONNACK (0: aceito).
function Connect-Mqtt([IO.Stream]$Fluxo, [string]$Conta, [string]$Senha) {
    $cliente = 'tecnico-' + [Guid]::NewGuid().ToString('N').Substring(0, 12)
    [byte[]]$corpo = (ConvertTo-MqttTexto 'MQTT')
    # Versão 5; começo limpo, usuário e senha; 30 s; sem propriedades.
    $corpo += [byte[]](5, 0xC2, 0, 30, 0)
    $corpo += ConvertTo-MqttTexto $cliente
    $corpo += ConvertTo-MqttTexto $Conta
    $corpo += ConvertTo-MqttTexto $Senha
    Send-MqttPacote $Fluxo 0x10 $corpo
    $resposta = Receive-MqttPacote $Fluxo
    if ($resposta.Tipo -ne 0x20) { throw 'a resposta não é um CONNACK: há mesmo um broker MQTT nesta porta?' }
    return [int]$resposta.Corpo[1]
}

# Publica com QoS 1; devolve o código do PUBACK (0 ou 0x10: aceito; 0x10 é "ninguém assina").
function Publish-Mqtt([IO.Stream]$Fluxo, [string]$Topico, [string]$Mensagem) {
    [byte[]]$corpo = (ConvertTo-MqttTexto $Topico)
    $corpo += [byte[]](0, 1, 0)
    $corpo += [Text.Encoding]::UTF8.GetBytes($Mensagem)
    Send-MqttPacote $Fluxo 0x32 $corpo
    $resposta = Receive-MqttPacote $Fluxo
    if ($resposta.Tipo -ne 0x40) { throw ('em vez do PUBACK veio um pacote 0x{0:X2}' -f $resposta.Tipo) }
    if ($resposta.Corpo.Length -lt 3) { return 0 }
    return [int]$resposta.Corpo[2]
}

# -- HTTP --

# Uma chamada à API do InfluxDB; o token vai só no cabeçalho.
function Invoke-Influx([string]$Url, [string]$Token, [string]$Metodo, [string]$Caminho, $Corpo) {
    $pedido = @{
        Uri             = $Url.TrimEnd('/') + $Caminho
        Method          = $Metodo
        Headers         = @{ Authorization = "Token $Token" }
        UseBasicParsing = $true
        TimeoutSec      = 15
    }
    if ($null -ne $Corpo) {
        $pedido.ContentType = 'application/json; charset=utf-8'
        $pedido.Body = [Text.Encoding]::UTF8.GetBytes((ConvertTo-Json $Corpo -Depth 8 -Compress))
    }
    return Invoke-RestMethod @pedido
}
