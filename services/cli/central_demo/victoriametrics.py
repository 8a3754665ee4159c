"""VictoriaMetrics, single node: one process a tenant, each with its own retention and password."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3

from services.cli.central_demo.boxes import BOXES, Box
from services.cli.central_demo.broker import ADDRESS
from services.cli.central_demo.database import Denied, Series
from services.cli.central_demo.programs import Program
from services.cli.children import Children

ASK_S = 10.0
