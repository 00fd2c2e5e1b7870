#!/usr/bin/env bash
# Tells the trials of this node that it will end: each writes its checkpoint at its next step, waits for the end, and
# goes on elsewhere. Gives them the time for that, but where none runs.
#   give-notice [SECONDS]    so long, 60 unless said: a trial that measures itself or draws samples writes after that
# Should the node stay after all, take the file away again, and they go on.
set -euo pipefail

touch "${RAYLORA_NOTICE_FILE:-${TMPDIR:-/tmp}/raylora-notice}"
for ((waited = 0; waited < ${1:-60}; waited++)); do
  # A process of Ray's names itself by what it runs, such as ray::ResourceTrainable.train; these run nothing of ours.
  pgrep -u "$(id -u)" -a -f '^ray::' | grep -qvE ' ray::(IDLE|DashboardAgent|RuntimeEnvAgent|(trainable|ResourceTrainable|ImplicitFunc) *$)' || break
  sleep 1
done
