"""An actor's process ends when its node's raylet has died.

Ray's workers look for their raylet by its number, and one that has died but was never waited for
(a container whose first process reaps nobody, a cluster inside a test) still has its number: they
live on, unreachable, with the GPUs that they hold.
"""

from __future__ import annotations

import os
import threading

LOOK_S = 1.0
EXIT_ORPHANED = 71


def end_when_orphaned() -> None:
    """Watch from a thread, and end this process with its raylet; a no-op outside of actors."""
    raylet = os.getppid()
    if os.environ.get("RAY_RAYLET_PID") != str(raylet):
        return
    never = threading.Event()

    def look() -> None:
        while os.getppid() == raylet:
            never.wait(LOOK_S)
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=look, name="orphan-watch", daemon=True).start()
