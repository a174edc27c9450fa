"""The published language of Ramal: what is on which topic, with which key.

PURE: no I/O, no clock, no randomness. Every other package speaks in these types; nobody else defines a record.

topics         names, keys, retention, and the partition of a key
commands       `auth.commands`, `registrar.commands`: what is asked (imperative)
registrations  `registrations`, `bindings`: what happened (past tense), and the state of an AOR
replies        `edge.replies`: what an edge is told
calls          `calls`: what happened to a call, as the edges saw it
cdrs           `cdrs`: one record a call, once it has ended
audit          `audit`: who failed to be whom
stats          `stats`: figures by minute and hour
people         `calls`, `cdrs`, `audit`: somebody is to be forgotten
owners         whose flow a Path value names
leases         `edge.leases`: which edges are alive
truths         is a record of `registrations` a truth, and under which claim?
wire           octets and CloudEvents headers of them all
limits         the widths that the tables have and the deciders enforce
personal       marks of fields that tell of a person
pseudonyms     a record as analysts see it
catalog        every record type by topic
compatibility  may a record type change so?
"""
