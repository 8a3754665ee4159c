"""The right values from an S7 server that shares no code with us."""

from __future__ import annotations

import pytest

from tests.kit.box import Box, plc
from tests.kit.c_snap7 import CServer

pytestmark = pytest.mark.timing

# The bytes and values of the DB500 of one machine, as its users wrote them down.
IMAGE = bytes.fromhex("0600412400003DF5C28F00980003")
VALUES = {
    "pecas_ruim": False,
    "pecas_boas": True,
    "maquina_ligada": True,
    "AI_Corrente": 10.25,
    "AI_Vibracao": 0.12,
    "contador_bom": 152,
    "contador_ruim": 3,
}


def test_values_of_the_c_server_reach_the_subscriber() -> None:
    box = Box(1)
    with CServer({500: IMAGE}) as server:
        box.real_plcs = [plc("forno-02", server.port)]
        with box:
            box.wait_for_messages("forno-02", 3)
            message = box.subscriber.data("forno-02")[-1]
            assert message["quality"] == "good"
            assert message["values"] == VALUES
            server.write(500, 10, (153).to_bytes(2))
            seen = len(box.subscriber.data("forno-02"))
            box.wait_for_messages("forno-02", 3)
            later = box.subscriber.data("forno-02")[seen:]
            assert later[-1]["values"]["contador_bom"] == 153
