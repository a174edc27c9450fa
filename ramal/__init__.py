"""The command line: `ramal up` (embedded), one subcommand per service, and the operators' questions."""
