"""Long forms of three campaigns: kills at random moments, pairs of commands in one folder, mutated inputs.

    python tests/campaign.py --kills 100 --pairs 60 --inputs 2000

Seeds are fixed: a campaign repeats. Short forms run with the tests. Ends with status 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PARTS = {"kills": "campaign_kills", "pairs": "campaign_pairs", "inputs": "campaign_fuzz"}
"""Option to module. Each has ``run(count, seed, folder) -> counts by outcome`` and ``BAD``, the outcomes that are
wrong; it prints a line for each that is, with what repeats it."""


def main() -> int:
    """Runs what was asked for and prints one line of counts for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="processes killed at random moments")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="pairs of commands in one folder at once")
    parser.add_argument("--inputs", type=int, default=0, metavar="N", help="mutated input files")
    parser.add_argument("--seed", type=int, default=0, help="another campaign of the same size")
    asked = parser.parse_args()
    bad = 0
    for option, module_name in PARTS.items():
        count = getattr(asked, option)
        if not count:
            continue
        module = importlib.import_module(module_name)
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            counts: Mapping[str, int] = module.run(count, asked.seed, Path(folder))
        print(f"{option}: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items()), flush=True)
        bad += sum(counts.get(outcome, 0) for outcome in module.BAD)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
