"""The pure heart: no clock, no socket, no file. Manual: docs/ESPECIFICACAO_MOTOR_ALERTAS.md."""
