#!/bin/bash
# Starts Ramal for the benchmark kit: ramal.sh DIRECTORY [OPTION…], in the foreground until SIGTERM.
# The broker begins empty each time, as the tables do; SIP is answered once the chain is warm. Statistics are left out:
# the peers reckon none.
set -euo pipefail
directory=$1
shift
rm -rf "$directory"
exec "$(dirname "$0")/../.venv/bin/ramal" stack --run-dir "$directory" --warm-up 90000 --analytics 0 "$@"
