"""Is this user who they say? Reads `auth.commands`, writes `registrar.commands`, `edge.replies` and `audit`.

- `decider`: PURE; a command and what is known -> Accept, Refuse, or what must be known first
- `replay`, `lockout`, `audit`: PURE; what a partition remembers, each with a bound
- `user`: a user's HA1s; `users`: who they are, from the sources below, cached and asked in batches
- `users_file`, `subscriber`, `ldap` (its bytes in `ldap_wire`): the sources
- `handler`: records in, records out; a record that waits for a source is parked
- `service`, `config`: wiring
"""
