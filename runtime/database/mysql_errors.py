"""What the errors of MySQL and MariaDB mean to us: who is to blame, and whether the connection may be used again."""

import pymysql

from runtime.errors import DatabaseRefused, DatabaseUnavailable

OUT_OF_RANGE = 1690
_DATA_ERRORS = frozenset(
    {
        1048,  # a column cannot be null
        1062,  # duplicate entry
        1264,  # out of range
        1265,  # data truncated
        1292,  # incorrect value
        1300,  # invalid character string
        1364,  # no default value
        1366,  # incorrect value for the column's character set
        1406,  # data too long
        OUT_OF_RANGE,
        3140,  # invalid JSON
        3819,  # a CHECK is violated (MySQL)
        4025,  # a CHECK is violated (MariaDB)
    }
)
_STATEMENT_ERRORS = frozenset(
    {
        1115,  # no such character set
        1128,  # no such function, also 1305
        1136,  # another number of columns than of values
        1149,  # syntax
        1193,  # no such system variable
        1222,  # the SELECTs of a UNION differ in their columns
        1235,  # this version does not support it yet
        1241,  # another number of columns than of operands
        1273,  # no such collation
        1305,
        1582,  # a function with another number of parameters, or other ones, also 1583
        1583,
    }
)
"""The server understood the statement and will never carry it out; beside those that PyMySQL calls programming."""
_CLOSING = frozenset({1053, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1927, 4031})
"""The server closes, or has closed, the connection with these."""
_ELSEWHERE = frozenset(
    {
        1047,  # a node of Galera's that has lost the cluster
        1290,  # read_only
        1836,  # read_only, said by InnoDB
        3100,  # a hook of Group Replication's
    }
)
"""With these it says that it is not the one to write to: another connection may lead to that. All other errors leave
the session usable."""
LEFT = _CLOSING | _ELSEWHERE
_MISSING = frozenset({1049, 1051, 1054, 1146})
"""No such database, table or column: somebody dropped it or has not migrated yet, so it may come back."""
_DEADLOCK = 1213


class Deadlock(DatabaseUnavailable):
    """Another transaction went on at the cost of this one."""


def code_of(error: BaseException) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def failure(error: pymysql.MySQLError) -> DatabaseRefused | DatabaseUnavailable:
    """Ours for a driver's error. The text of a data error names the column and may quote the value."""
    code = code_of(error)
    text = str(error.args[1])[:200] if len(error.args) > 1 else type(error).__name__
    if code == _DEADLOCK:
        return Deadlock(f"{text} ({code})")
    known = code in _DATA_ERRORS or code in _STATEMENT_ERRORS
    wrong = known or (isinstance(error, pymysql.ProgrammingError) and code not in _MISSING)
    return (DatabaseRefused if wrong else DatabaseUnavailable)(f"{text} ({code})")
