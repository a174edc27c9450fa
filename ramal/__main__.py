"""`python -m ramal` is `ramal`."""

from ramal.entry import main

main()
