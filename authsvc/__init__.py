"""Is this user who they say? Reads `auth.commands`, writes `registrar.commands`, `edge.replies` and `audit`.

decider      PURE; a command and what is known -> Accept, Refuse, or what must be known first
memory/      PURE; what a partition remembers, each with a bound
  nonces       which uses of a nonce were seen
  lockouts     failures by user and source
  requests     which edge asked first for a call
  audit_rate   how much of an attack is written to `audit`
  parking      commands that wait for a look-up
  attempts     wrong passwords of people who enrol
users/       who users are
  directory    all sources as one: remembered, asked in batches
  ha1          a user's HA1s
  remembered   what was looked up, and for how long it counts
  batches      look-ups gathered
  file, table, ldap  the sources
  outage       whether a table answers
  ldap_people  the same, of people who log in by hand: binds, groups
  ldap_connection, ldap_wire, ldap_socket, ldap_faults, ldap_values  LDAP as it is spoken, and what goes wrong with it
  accounts     PURE; whether an LDAP account is disabled, and when it changed
  enrolled     HA1s of who has enrolled, for users of LDAP
  sealing      the same at rest: AES-256-GCM
  retiring     PURE; whether a changed password ends an enrolment
  leavers      PURE; who has left, and when that is not believed
records      decisions as records
handler      records in, records out; a record that waits for a source is parked
sweep        ends the bindings of users who are gone
watch        notices who enrols, and whose password has changed
enrolment    proves a password, and stores what phones need of it
restore      what a new owner of a partition must know
config       settings
service      wiring
"""
