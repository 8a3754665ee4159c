"""VictoriaMetrics, one binary, told by HTTP; 64 MB for its caches, one thread of Go code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import orjson
import urllib3

from tests.bench.engines.engine import Buckets
from tests.bench.engines.signals import Columns
from tests.kit.common import free_port, until
from tests.kit.victoria import force_merge, program


class VictoriaMetrics:
    """Started on a free port; who kills the worker kills it too."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        flags = [f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}",
                 "-retentionPeriod=5y", "-memory.allowedBytes=64MB"]  # fmt: skip
        self._log = (folder.parent / "victoria.log").open("ab")
        env = {**os.environ, "GOMAXPROCS": "1"}
        self._process = subprocess.Popen(
            [program("victoria-metrics"), *flags], stdout=self._log, stderr=self._log, env=env
        )
        self._http = urllib3.PoolManager(timeout=120)
        until(self._well, 30, "VictoriaMetrics does not answer")

    def _well(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError("VictoriaMetrics does not start with what is in its folder")
        answer = self._http.request("GET", f"{self._url}/health", retries=False)
        return answer.status == 200

    def _post(self, lines: list[bytes]) -> None:
        reply = self._http.request(
            "POST", f"{self._url}/api/v1/import", body=b"\n".join(lines), retries=False
        )
        if reply.status != 204:
            raise OSError(f"HTTP {reply.status}: {reply.data[:200]!r}")

    def take(self, plc: str, rows: Columns, block_rows: int) -> None:
        """A line for each field of each block."""
        lines = []
        named = [(n, np.ascontiguousarray(a).astype(np.float64)) for n, a in rows.named()]
        for begin in range(0, len(rows.ts_ms), block_rows):
            times = orjson.dumps(rows.ts_ms[begin : begin + block_rows].tolist())
            for name, values in named:
                # Rounded as a message has it; the engine keeps decimals, not the bits of a float.
                part = np.round(values[begin : begin + block_rows], 4).tolist()
                lines.append(_line(name, plc, orjson.dumps(part), times))
        self._post(lines)

    def take_minutes(self, plc: str, field: str, ts_ms: np.ndarray, of: Buckets) -> None:
        times = orjson.dumps(ts_ms.tolist())
        for name, values in zip(("mean", "min", "max"), of, strict=True):
            body = orjson.dumps(values.astype(np.float64).tolist())
            self._post([_line(f"{field}_{name}", plc, body, times)])

    def settle(self) -> None:
        assert self._http.request("GET", self._url + "/internal/force_flush").status == 200
        force_merge(self._url, Path(self._log.name))

    def _range(self, query: str, begin_ms: int, end_ms: int, buckets: int) -> list[np.ndarray]:
        step_ms = (end_ms - begin_ms) // buckets
        start_s, end_s = (begin_ms + step_ms) / 1e3, end_ms / 1e3
        fields = {"query": query, "start": str(start_s), "end": str(end_s),
                  "step": f"{step_ms}ms", "nocache": "1"}  # fmt: skip
        reply = self._http.request("GET", f"{self._url}/api/v1/query_range", fields=fields)
        data = orjson.loads(reply.data)
        assert reply.status == 200, data
        return [np.array([float(v) for _, v in s["values"]]) for s in data["data"]["result"]]

    def day(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        window = f"[{(end_ms - begin_ms) // buckets}ms]"
        query = f'rollup({field}{{plc="{plc}"}}{window})'
        got = sorted(self._range(query, begin_ms, end_ms, buckets), key=lambda a: float(a.sum()))
        least, mean, largest = got
        return mean, least, largest

    def month(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        window = f"[{(end_ms - begin_ms) // buckets}ms]"
        got = []
        for name, fn in (("mean", "avg"), ("min", "min"), ("max", "max")):
            query = f'{fn}_over_time({field}_{name}{{plc="{plc}"}}{window})'
            got += self._range(query, begin_ms, end_ms, buckets)
        mean, least, largest = got
        return mean, least, largest

    def held(self, plc: str) -> np.ndarray:
        assert self._http.request("GET", f"{self._url}/internal/force_flush").status == 200
        query = {"match[]": f'r0{{plc="{plc}"}}', "start": "0"}
        reply = self._http.request("GET", f"{self._url}/api/v1/export", fields=query)
        found = [orjson.loads(line)["timestamps"] for line in reply.data.splitlines()]
        return np.sort(np.array([t for part in found for t in part], np.int64))

    def pid(self) -> int:
        return self._process.pid


def _line(name: str, plc: str, values: bytes, times: bytes) -> bytes:
    return b'{"metric":{"__name__":"%s","plc":"%s"},"values":%s,"timestamps":%s}' % (
        name.encode(), plc.encode(), values, times
    )  # fmt: skip
