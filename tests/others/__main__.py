"""Goes on each journey twice, on Django's engine and on ours with replicas that are always behind, and compares how the steps ended.

`python -m tests.others [journey …]`. Once more without what our documentation asks for, to see that the checks ask for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from django_pglb.testing import Cluster

ROOT = Path(__file__).parent.parent.parent
JOURNEYS = sorted(path.stem for path in (Path(__file__).parent / "journeys").glob("[!_]*.py"))
# Long enough that a page which follows a write finds no replica that has it.
DELAY = "500ms"
LONGEST_JOURNEY_S = 180


class Pair(NamedTuple):
    """How one journey ended on both engines."""

    name: str
    version: str
    steps: int
    plain: dict[str, str]
    ours: dict[str, str]
    ran: dict[str, int]
    wrong: str
    seconds: float

    @property
    def is_well(self) -> bool:
        return self.plain == self.ours and not self.wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("journeys", nargs="*", metavar="journey", help=f"{', '.join(JOURNEYS)}; all of them by default")
    parser.add_argument("--trace", action="store_true", help="show where a step failed")
    arguments = parser.parse_args()
    unknown = set(arguments.journeys) - set(JOURNEYS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if arguments.trace:
        os.environ["OTHERS_TRACE"] = "1"
    with Cluster(replicas=2, redis=True, replica_settings={"recovery_min_apply_delay": DELAY}) as cluster:
        pairs = [_go(cluster, name) for name in arguments.journeys or JOURNEYS]
    return _report(pairs)


def _go(cluster: Cluster, name: str) -> Pair:
    started = time.monotonic()
    plain, ours, bare = (_travel(cluster, name, mode) for mode in ("plain", "ours", "bare"))
    seconds = time.monotonic() - started
    wanted, found = bare["wanted"], bare["checks"]
    wrong = "" if found == wanted else f"without what it needs the checks say {found}, not {wanted}"
    wrong = wrong or ("" if not ours["checks"] else f"the checks say {ours['checks']}")
    if not (ours["is_read_from_primary"] or any(where.startswith("replica") for where in ours["ran"])):
        wrong = wrong or "nothing was read from a replica"
    pair = Pair(name, ours["version"], len(ours["ended"]), _failed(plain), _failed(ours), ours["ran"], wrong, seconds)
    print(_line(pair), flush=True)
    return pair


def _failed(result: dict[str, Any]) -> dict[str, str]:
    return {step: how for step, how in result["ended"].items() if how}


def _travel(cluster: Cluster, name: str, mode: str) -> dict[str, Any]:
    if mode != "bare":
        cluster.create_database(f"{name}_{mode}")
    servers = {
        "primary": cluster.primary.port,
        "replicas": [replica.port for replica in cluster.replicas],
        "redis": cluster.redis.url.rsplit("/", 1)[0],
    }
    environment = {**os.environ, "OTHERS_JOURNEY": name, "OTHERS_MODE": mode, "OTHERS_SERVERS": json.dumps(servers)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.others.travel"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=LONGEST_JOURNEY_S, check=False)
    if done.returncode:
        sys.exit(f"{name} on {mode} could not be gone on")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _line(pair: Pair) -> str:
    on_replicas = sum(count for where, count in pair.ran.items() if where.startswith("replica"))
    reads = f"{on_replicas} of {sum(pair.ran.values())} reads on replicas"
    return f"{'ok  ' if pair.is_well else 'DIFF'} {pair.name} {pair.version}: {pair.steps} steps, {reads}, {pair.seconds:.0f} s"


def _report(pairs: list[Pair]) -> int:
    for pair in pairs:
        print(f"\n{pair.name}: {', '.join(f'{where} {count}' for where, count in pair.ran.items())}")
        for step in sorted({*pair.plain, *pair.ours}):
            print(f"  {step}: Django's engine: {pair.plain.get(step, 'well')}; ours: {pair.ours.get(step, 'well')}")
        if pair.wrong:
            print(f"  {pair.wrong}")
    unlike = [pair.name for pair in pairs if not pair.is_well]
    print(f"\n{len(pairs)} packages, {len(unlike)} that differ: {', '.join(unlike) or 'none'}")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main())
