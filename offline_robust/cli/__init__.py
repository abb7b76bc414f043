"""The command line: `offline-robust`."""

from offline_robust.cli.main import main

__all__ = ["main"]
