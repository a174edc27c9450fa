"""The registrar: which contacts does this AOR have? The only writer of bindings.

decider    PURE; RFC 3261 section 10.3: state, command and time -> what happens to the bindings
truths     PURE; the bytes of `registrations` and `bindings`
unknown    PURE; fields of a state that a newer version wrote
partition  what is remembered of one partition, and when something of it falls due
handler    a batch of commands in, truths and refusals out
restore    claim, snapshots, replay
snapshot   the last states to `bindings`, off the hot path
expiry     the timer that asks for the end of bindings whose time is over
metrics    what is counted
config     settings
service    wiring
"""
