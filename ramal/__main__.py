"""`python -m ramal` is `ramal`."""

from ramal.cli import main

main()
