"""Lag from the source's scan to the written target: ``python -m tests.bench.mirror [SECONDS]``.

From a raw frame on the bus, as a reader sends it after its scan, to the bytes in a strict fake
target on loopback, as the target sees them. CPU of the mirror while nothing changes stands apart.
"""

from __future__ import annotations

import statistics
import sys
import time

from tests.kit.fake_plc import FakePlc
from tests.kit.mirror_rig import MirrorRig

SIZE = 500


def main(seconds: float) -> None:
    """Prints one table."""
    block = bytearray(SIZE)
    lags_ms = []
    with (
        FakePlc({600: block}, pdu_bytes=480, writable={600: (0, SIZE)}) as plc,
        MirrorRig(plc.port, SIZE) as rig,
    ):
        image = bytearray(SIZE)
        rig.send_until(
            bytes(image), lambda: rig.service is not None and rig.service.said("mirror_ok")
        )
        end_s = time.monotonic() + seconds
        n = 0
        while time.monotonic() < end_s:
            n = n % 255 + 1
            image[:] = bytes([n]) * SIZE
            sent_s = time.monotonic()
            rig.send(bytes(image))
            while block[-1] != n:
                time.sleep(0.0002)
            lags_ms.append((time.monotonic() - sent_s) * 1e3)
            time.sleep(0.02)
        cpu_s = rig.cpu_s()
        for _ in range(50):
            rig.send(bytes(image))
            time.sleep(0.1)
        idle = (rig.cpu_s() - cpu_s) / 5
    cuts = statistics.quantiles(lags_ms, n=100)
    print("| what | value |\n|---|---|")
    print(f"| 500 B changed, frame to written target, {len(lags_ms)} times | p50 {cuts[49]:.1f} ms,"
          f" p99 {cuts[98]:.1f} ms |")  # fmt: skip
    print(f"| CPU of the mirror, 10 scans/s, nothing changes | {idle * 100:.1f} % |")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
