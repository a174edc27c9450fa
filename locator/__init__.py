"""The projection into MySQL `location`, and the reply after it: the one place that says 200 to a REGISTER.

`service` wires, `handler` takes batches of the truth, `decider` decides which rows they change, `tables` has the
SQL, `history` answers who was registered when, `rebuild` makes the tables anew from the log.
"""
