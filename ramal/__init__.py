"""The command line: `ramal up` (embedded), one subcommand per service, and the operators' questions.

entry        the first lines: Ctrl-C while loading, closed streams
cli          what can be typed, and how errors are said
help         how `--help` reads
cli_up       the same, of `up`
cli_calls    the same, of calls
cli_registrations  the same, of registrations
cli_people   the same, of what is kept of persons
cli_users    the same, of users and aliases
cli_enrol    the same, of users of LDAP who enrol, and of the keys that seal that
cli_import   the same, of what comes from other programs
cli_trace    the same, of traces
cli_operators  the same, of who may log in to the console
asking       what commands that ask something share
system       what the services of a process stand on: settings, log, database
directory    of an embedded system: who holds it, its keys
up           `up`: every service in this process
page         of `up`: where its page is, and by which certificate
sockets      of `up`: where it listens, and whether it can
stack        `stack`: each service a process, on loopback
supervisor   keeps them running
workers      `edge --workers`: several edges on the ports of one
gathered     of those: their health pages as one
warmup       registrations until a cold chain is warm
certificate  self-signed ones, and whom one names
processes    children that never outlive us
backends     Kafka, MariaDB, OpenLDAP on loopback
containers   the same from images
operations   topics, the schema, a removal, reading a topic
forgetting   `forget`: a person taken out, and a search for him
rebuilding   `rebuild`
users        `user`, `alias`
enrolling    `enroll`, `keys`
questions    who is registered, who was
logins       why a phone cannot log in
calls        which calls are open, what became of one, who missed what
top          `top`: what the system does now
ladder       PURE; a call's ladder as text
importing/   `import`: from Kamailio or OpenSIPS
    rows         PURE; what a row of theirs means here
    source       their database, which is only read
    tables       accounts, aliases, groups: into ours
    through_log  registrations and calls: as commands and events
    report       what was done, and what was left out
tracing/     `trace`: OpenTelemetry traces
    spans        PURE; what records say of who worked when
    follow       the topics, from now on
    otlp         to a collector
export       `export`: files for analysts
extras       how to install what is left out
wording      how AORs and times are written
output       standard output that may be gone
parts        the file that an export becomes, part by part
probe        `python -m ramal.probe`: what a container's health check asks
published    docs/events, from the code
reference    docs/configuration.md, from the code
docstrings   what the code says of the fields of a Struct
"""
