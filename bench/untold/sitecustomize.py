"""On PYTHONPATH: an edge that tells nothing of calls, for bench/records.py; no setting does that."""

from edge.core.call_events import telling

telling.TOLD = telling.TOLD_IN_DIALOG = frozenset()
