"""The published language of Ramal: what is on which topic, with which key.

Pure: no I/O, no clock, no randomness. Every other package speaks in these types;
nobody else defines a record.

- `topics`: names, keys, retention, and the partition of a key
- `commands`: what is asked (imperative): Authenticate, RegisterContacts, ExpireContacts, RemoveContacts
- `registrations`: what happened (past tense): Claimed, BindingsRecorded; and the state of an AOR
- `replies`: what an edge is told: Registered, Refused
- `calls`: what happened to a call, as the edges saw it; `cdrs`: one record a call
- `personal`: the marks of fields that tell of a person
- `audit`, `leases`: who failed to be whom; which edges are alive
- `wire`: bytes and CloudEvents headers of all of them
- `limits`: the widths that the tables have and the decider enforces
"""
