#!/usr/bin/env python3
"""The benchmark kit, with callers who have credentials where a target has CHALLENGE_CALLS=true.

Where a target's SQL has `settled_call`, the number of calls in its tables, these are waited for before the processor
time is read: what is left to be done when the last call has ended is a part of what the calls cost.

    bench/kit.py ../shared/bench run kamailio:DB_MODE=3 bench/ramal.json bench/ramal.json:CHALLENGE_CALLS=true \
        --workloads register,call

The kit's own caller knows no 407, since its peer authenticates REGISTER only. Everything else is the kit's.
"""

import importlib
import sys
import time
from pathlib import Path

CALLER = Path(__file__).resolve().parent / "uac_with_credentials.xml"
WRITTEN_SECONDS = 60.0


def main() -> None:
    """Runs the kit in the directory that the first argument names with the others."""
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "bench.py").is_file():
        sys.exit(f"{__doc__}\nThe first argument is the kit's directory.")
    sys.path.insert(0, sys.argv[1])
    bench = importlib.import_module("bench")
    command = bench.Load.command

    def with_credentials(load, scenario, port, extra):  # type: ignore[no-untyped-def]
        words = command(load, scenario, port, extra)
        if scenario == "uac" and load.v.get("CHALLENGE_CALLS") == "true":
            words[words.index("-sf") + 1] = str(CALLER)
        return words

    generate = bench.Load.generate

    def until_it_is_written(load, scenario, count, *more, **named):  # type: ignore[no-untyped-def]
        found = generate(load, scenario, count, *more, **named)
        query = load.target.query("settled_call") if scenario == "uac" else None
        if query:
            sql, until = bench.Sql(load.v, load.target.database), time.monotonic() + WRITTEN_SECONDS
            while int(sql.one(query)) < found["ok"] and time.monotonic() < until:
                time.sleep(0.1)
            sql.close()
        return found

    bench.Load.command = with_credentials
    bench.Load.generate = until_it_is_written
    del sys.argv[1]
    bench.main()


if __name__ == "__main__":
    main()
