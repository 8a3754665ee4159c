"""PLC to SCADA: a whole box with a Sparkplug output, a broker, a host with its own decoder."""

from __future__ import annotations

import json

from tests.kit.box import plc
from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.simulator import Simulator
from tests.kit.site import Site
from tests.kit.sparkplug import HOST, HostApplication
from tests.kit.sparkplug_judge import Judge


def test_values_reach_a_host_and_a_plc_that_is_off_is_told() -> None:
    config = {"site": "planta-sp", "locatario": "acme", "plcs": [plc("prensa-01", 102)]}
    with Simulator(config, "--tick-ms", "100") as simulator, Broker() as broker:
        scada = {"name": "scada", "type": "sparkplug", "host": "127.0.0.1", "port": broker.port}
        output = {**scada, "tls": False, "primary_host": HOST}
        plcs = [plc("prensa-01", simulator.ports["prensa-01"])]
        with Site({**config, "plcs": plcs, "outputs": [output]}) as site:
            site.wait_running()

            def state() -> tuple[str, str]:
                (row,) = json.loads(site.run("status", "--json").stdout)["outputs"]
                return row["status"], (row["error"] or {}).get("code", "")

            until(lambda: state() == ("degraded", "host_offline"), 10, lambda: str(state()))
            with HostApplication(broker.port) as host:
                host.wait("DDATA", 20)
                until(lambda: state() == ("ok", ""), 10, lambda: str(state()))
                simulator.tell("down prensa-01")
                host.wait("DDEATH", 1, 20)
                simulator.tell("up prensa-01")
                births = host.count("DBIRTH")
                host.wait("DBIRTH", births + 1, 20)
                data = host.count("DDATA")
                host.wait("DDATA", data + 5)
                judge = Judge()
                judge.hear(host.heard)
        seqs = sorted({seq for _, _, seq in judge.delivered})
        assert seqs == list(range(1, len(seqs) + 1)), "from the first message on, none is missing"
        assert judge.alive == {"prensa-01"}
        assert judge.current["prensa-01/db500/contador_bom"] is not None
