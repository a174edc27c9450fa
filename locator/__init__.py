"""The projection into MySQL `location`, and the reply after it: the one place that says 200 to a REGISTER.

truths      records of `registrations`, read
decider     PURE; which rows a batch of them changes, and whom to tell
tables      the decision as SQL
projection  several partitions' batches as one transaction
handler     batches in, rows and positions written, then the replies
history     who was registered when
retention   history that is too old is deleted
rebuild     the tables made anew from the log, while it serves
config      settings
service     wiring
"""
