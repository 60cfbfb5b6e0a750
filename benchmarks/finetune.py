"""What ten minutes on 20 own pairs give: the shipped model before and after ``train fit --init small``, on these pairs.

    python benchmarks/finetune.py --data folder=DIR_A,DIR_B --work DIR [--task vif] [--pairs 20] [--steps 400]

Runs the commands of docs/howto/fine-tune.md, which it prints: the pairs, built lean and degraded anew as they are read,
tune the model; then it is scored on these pairs under other degradations (another seed), beside the model as it ships.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys


def run(command: str) -> str:
    """Run one of our commands, said as it is; its output."""
    print(f"$ {command}", flush=True)
    program, *rest = shlex.split(command)
    told = subprocess.run([sys.executable, "-m", f"clearfuse.{program}", *rest], stdout=subprocess.PIPE, check=True)
    return told.stdout.decode()


def main() -> None:
    """Tune and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="NAME=DIR")
    parser.add_argument("--work", required=True)
    parser.add_argument("--task", default="vif")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    own, test, tuned = (f"{options.work}/{name}" for name in ("own", "own-degraded", "tuned"))
    data = f"--task {options.task} --data {shlex.quote(options.data)} --limit {options.pairs}"
    run(f"synth build {data} --lean --out {own}")
    run(f"synth build {data} --n 1-3 --seed 1 --out {test}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(f"train fit {own} --init small --steps {options.steps} --workers {options.workers} --out {tuned}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = run(f"train eval {test} --model small --model {tuned} --fuser none --out {options.work}/report --json")
    methods = json.loads(told)["groups"]["overall"]["all"]["methods"]
    print(f"\n{options.pairs} pairs, {options.steps} steps, {spent / 60:.1f} minutes of processor time")
    for name, metrics in methods.items():
        cells = "  ".join(f"{metric} {stat['mean']:.3f}" for metric, stat in metrics.items())
        print(f"{name:<24}{cells}")


if __name__ == "__main__":
    main()
