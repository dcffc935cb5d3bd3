"""Runs one service of the local mesh, and ends with the process that started it.

    python -m outboard.local_child services.separator --listen unix:/folder/separator.sock

Standard input is a pipe that only the starting process holds: when it ends, however it ends, the pipe closes and this
process exits at once. (The kernel's parent-death signal would also fire when merely the starting thread ends.)
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def main() -> None:
    """Runs the module named first on the command line with the arguments behind it."""
    threading.Thread(target=_exit_with_parent, name="parent-watch", daemon=True).start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    # Nothing to drain: stages hold no state, and the workflow goes on from its last finished step.
    os._exit(1)


if __name__ == "__main__":
    main()
