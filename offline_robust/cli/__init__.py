"""The command line: `offline-robust`."""

from __future__ import annotations

from offline_robust.stopping import heard


def main() -> None:
    """Entry point of the console script. Signals are heard before anything slow is imported."""
    with heard():
        from offline_robust.cli.commands import run

        run()


__all__ = ["main"]
