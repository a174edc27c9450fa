"""I/O that the services share: the log, the database, configuration, HTTP, logs.

Only this package touches aiokafka, aiomysql and sqlite3. Their errors are mapped to those of `errors` at this border.

log/                  the log: records in order, for ever
  port                  what every log does; the promises
  kafka/                in Kafka
    log                   the port, over aiokafka's client
    append, lane          writes: to each broker, to each partition
    records               batches of records whose headers are prepared, as octets
    fetch                 reads
    group, membership     consumer groups, static members (KIP-345)
    transactions          transactional ids
    topics                how ours must be made
    link, session, wire   connections for Produce and Fetch: frames, their beginning, their octets
    codes                 what error codes mean to us
    closing               ends within a deadline
  apart                 appends of which one partition may be away
  clock                 its time
  embedded/             in one SQLite file
    log, reads, sql       the port, its reads and subscriptions, its statements
    groups                consumer groups within a process
database/             the tables
  port                  reads, and transactions as one packet
  mysql, mysql_connection  MySQL and MariaDB
  mysql_errors          what their errors mean to us
  literals              values as SQL text
  sqlite                the embedded file's
  migrations            the schema, in numbered files
  keyset                PURE; pages without OFFSET
  positions             how far each partition of the log is in them
  failover              notices that they are older than that
  one_database          holds a consumer group to one of them
  rebuild               made anew from the log
store                 the one SQLite file, shared by log and tables
handler               what a service is to a worker
worker                drives a handler from a consumer group
places                what a worker knows of its partitions
lag                   how far it is behind
service               runs services until SIGTERM
tasks                 those that their owner ends
http                  /healthz, /readyz, /metrics
inherited             sockets that our parent has opened
pages                 pages for the public, and their listener
config                `RAMAL_…` over `ramal.toml`
kinds                 PURE; types of settings, and what they allow in words
errors                what can go wrong with what we need
logs, metrics
rewriting             small files of lines that people and programs change
tls                   towards Kafka and MySQL
"""
