"""Widths and bounds: what does not fit is refused by name before it reaches the log.

The widths are those of OpenSIPS 3.x' `location` table (see locator/schema), in characters.
"""

USERNAME = 64
DOMAIN = 64
CONTACT = 1024
CONTACT_PARAMS = 1024
RECEIVED = 255
PATH = 1024
CALL_ID = 255
BRANCH = 128
USER_AGENT = 255
"""Longer ones are cut, not refused: the field is for people."""
INSTANCE = 255
TAG = 128
"""Of From and To in the tables of calls."""
URI = 255
"""Of URIs and AORs in the tables of calls, which are cut to this."""
PHRASE = 64

CONTACTS_PER_REGISTER = 16
STATE_BYTES = 256 * 1024
"""The encoded state of one AOR; a command that would exceed it is refused."""
RECORD_BYTES = 768 * 1024
"""No record larger than this is ever handed to a producer (the broker's default limit is 1 MiB)."""
DEAD_LETTER_BYTES = 64 * 1024
"""Dead letters are cut to this."""
