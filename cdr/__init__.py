"""What calls happened: their events, in any order, folded into tables; then one record a call on `cdrs`.

`service` wires, `handler` takes batches of events, `state` is what is known of a call (in any order, however often),
`decider` says what became of it, `rows` what the tables `acc`, `missed_calls`, `cdrs` and `open_calls` have of it,
`tables` has the SQL, `closing` ends calls of which nothing is heard, `rebuild` makes the tables anew from the log.
"""
