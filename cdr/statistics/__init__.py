"""Windowed figures of calls, registrations and log-ins; pure.

Read in this order: `delay` (a mergeable histogram), `calls`, `online` and `logins` (what one partition knows, and its
figures), `share` (the three together, with their positions), `board` (the shares of all partitions added up, and the
rates: ASR, NER, ACD). The shells are `cdr.analytics` (Faust) and `cdr.figures` (`ramal up`).

An event never adds to a figure: it replaces what its call has in its windows. So neither order nor repetition counts.
A minute is closed once the partition's newest record is `grace` younger than its end; what comes for a closed minute
is late: it is counted as late and changes nothing else. Both are told by the log's times alone, so that a replay
closes the same minutes after the same records.
"""
