"""Metrics: a line of JSON per logged update, always. `tracking` has Weights & Biases beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_robust.experiments.tracking import WandbRun, check_wandb
from offline_robust.files import naming, write_text
from offline_robust.untrusted import open_regular, parse_json, read_lines

__all__ = ["MetricsFile", "WandbRun", "check_wandb", "read_metrics"]


class MetricsFile:
    """Appends to metrics.jsonl, one flushed line at a time.

    Args:
        path: the file.
        keep_until: on resume, lines of later steps (and a line cut by a kill) are dropped.
    """

    def __init__(self, path: Path, keep_until: int = 0) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= keep_until] if path.is_file() else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, line: Mapping[str, Any]) -> None:
        """Writes one line, or nothing of it.

        Raises:
            OSError: there is no room for it; names the file.
        """
        rest = (json.dumps(line) + "\n").encode()
        with naming(self._path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError:
                self._file.truncate(self._size)
                raise
        self._size = self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; lines that are not JSON objects with a step (a killed run's last) are left out."""
    lines = []
    with open_regular(path) as file:
        for text in read_lines(file):
            try:
                line = parse_json(text)
            except ValueError:
                continue
            if isinstance(line, dict) and type(line.get("step")) is int:
                lines.append(line)
    return lines
