"""On PYTHONPATH: an edge that tells nothing of calls from SIGUSR1 on, and again from SIGUSR2 on, for bench/records.py.

No setting does that: records are not for choice.
"""

import signal
import sys

if "edge" in sys.orig_argv:
    from edge.core.call_events import telling
    from edge.core.proxy import admission, within

    def silent(*_: object) -> None:
        """What has begun is told to its end, but for its BYE."""
        admission.TOLD = within.TOLD_IN_DIALOG = frozenset()

    def told(*_: object) -> None:
        """As it should be."""
        admission.TOLD, within.TOLD_IN_DIALOG = telling.TOLD, telling.TOLD_IN_DIALOG

    signal.signal(signal.SIGUSR1, silent)
    signal.signal(signal.SIGUSR2, told)
