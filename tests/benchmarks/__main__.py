"""Run the benchmarks that are named, or all."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import disruption, forecast, hold, kubernetes, overhead, ramp, releases, ssh
from tests.benchmarks.gates import table as gates

BENCHMARKS: dict[str, Callable[[Path], list[dict[str, object]]]] = {
    "disruption": disruption.measure,
    "forecast": forecast.measure,
    "gates": gates.measure,
    "hold": hold.measure,
    "kubernetes": kubernetes.measure,
    "overhead": overhead.measure,
    "ramp": ramp.measure,
    "releases": releases.measure,
    "ssh": ssh.measure,
}
OUT = Path("build/bench")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    for name in names:
        place = OUT / name
        place.mkdir(parents=True, exist_ok=True)
        rows = BENCHMARKS[name](place)
        (OUT / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
        table = Table(*rows[0], title=name)
        for row in rows:
            table.add_row(*("–" if cell is None else str(cell) for cell in row.values()))
        Console(width=160).print(table)


if __name__ == "__main__":
    main()
