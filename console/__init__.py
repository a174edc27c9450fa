"""The web console: a softphone page for users, and pages for operators.

pages          the files of both, under a strict policy
accounts       the operators' file: names, roles, hashes of passwords
sessions       PURE; who is logged in
directory      operators of an LDAP directory
gate           log-in, cookie, and who may
searching      PURE; what was typed, as SQL; places in lists
registrations  who is registered, who was
calls          which calls there are and were, and one of them
story          PURE; a call told from its events: sentences, and a ladder to be drawn
phrases        PURE; the sentences, in two languages
logins         why a phone of a user cannot log in
log_outs       who is logged in, and the end of all sessions of one
audited        what an operator has done, as a record
removal        an operator's removal, through the log
health         what all processes do now, and how far tables are behind
sampled        PURE; what two looks at metrics say
live           server-sent events: what has changed
enrolment      the page of users: who proves the directory's password gets a phone that logs in
operators      the operators' routes
config         settings
service        wiring
"""
