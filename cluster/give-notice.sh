#!/usr/bin/env bash
# Tells the trials of this node that it will end: each writes its checkpoint at its next step and leaves for another
# node. Waits until they have.
#   give-notice [SECONDS]    waits at most so long; 60 unless said
set -euo pipefail

touch "${RAYLORA_NOTICE_FILE:-${TMPDIR:-/tmp}/raylora-notice}"
for ((waited = 0; waited < ${1:-60}; waited++)); do
  # A process of Ray's names itself by what it runs, such as ray::ImplicitFunc.train; these run nothing of ours.
  pgrep -u "$(id -u)" -a -f '^ray::' | grep -qvE ' ray::(IDLE|DashboardAgent|RuntimeEnvAgent)' || break
  sleep 1
done
