"""The thresholds that `tuning` chose for the peers: by gate, then by requests per second. They are kept beside it, in tuned.json."""

import json
from functools import cache
from pathlib import Path

PLACE = Path(__file__).with_name("tuned.json")


@cache
def settings(gate: str, level: float) -> dict[str, float]:
    """Return the settings of *gate* for the nearest level that was tuned for."""
    kept: dict[str, dict[str, dict[str, float]]] = json.loads(PLACE.read_text())["settings"]
    levels = kept[gate]
    return levels[min(levels, key=lambda one: abs(float(one) - level))]
