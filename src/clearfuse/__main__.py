"""The command ``clearfuse``, and ``python -m clearfuse``: ``synth …``, ``train …``, ``bench …`` and ``doctor``."""

from __future__ import annotations

import sys

import clearfuse

USAGE = """Usage: clearfuse synth|train|bench COMMAND [ARGS]...
       clearfuse doctor [--json] [--offline]

  synth   make degraded data from clean pairs, look at it, check it
  train   fit models on it, fuse images, score the result
  bench   build a benchmark from its TOML file, score methods on it, submit scores
  doctor  say what this machine has, what it lacks, and what to do about it

clearfuse synth --help, clearfuse train --help and clearfuse bench --help list the commands of each."""


def main() -> None:
    """Hand the arguments to ``synth``, ``train``, ``bench`` or ``doctor``."""
    clearfuse.leave_users_folder()
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("-h", "--help"):
        print(USAGE)
        return
    if name == "--version":
        from clearfuse.synth.version import __version__

        print(f"clearfuse {__version__}")
        return
    if name == "doctor":
        from clearfuse import doctor

        raise SystemExit(doctor.main(arguments))
    sys.argv = [f"clearfuse {name}", *arguments]
    if name == "synth":
        from clearfuse.synth.cli import main as run
    elif name == "train":
        from clearfuse.train.cli import main as run
    elif name == "bench":
        from clearfuse.bench.cli import main as run
    else:
        from clearfuse.synth.types import unknown

        print(f"clearfuse: error: {unknown('command', name, ('synth', 'train', 'bench', 'doctor'))}", file=sys.stderr)
        raise SystemExit(2)
    run()


if __name__ == "__main__":
    main()
