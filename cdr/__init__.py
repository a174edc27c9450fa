"""What calls happened: their events, in any order, folded into tables; then one record a call on `cdrs`.

events      records of `calls`, read and written
state       PURE; what is known of a call by its events, in any order, however often
decider     PURE; what became of it, and what a batch of events changes
forgetting  PURE; a call without somebody who was in it
rows        PURE; what the tables `acc`, `missed_calls`, `cdrs` and `open_calls` have of it
tables      the changes as SQL
projection  several partitions' batches as one transaction
handler     batches in, rows and positions written, then the records of calls that have ended
keys        those of the analysts' pseudonyms
view        `calls`, `cdrs` and `registrations` under pseudonyms, on topics of their own
closing     ends calls of which nothing is heard any more, through the log
statistics/ PURE; figures by minute and hour
  delay     a histogram that can be added up
  calls     the calls of one partition
  online    its registrations
  logins    its failed log-ins
  share     the three of one partition number, and where it is
  board     all partitions added up, with their rates
figures     figures go out on `stats` and come back on a page; how `ramal up` reckons them
analytics   the Faust application: how Kafka has them reckoned
application how Faust is set up
rebuild     the tables made anew from the log, while it serves
audit       do the tables have what the edges told?
config      settings
service     wiring
"""
