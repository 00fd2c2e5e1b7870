#!/usr/bin/env bash
# Begins a search in OUT or goes on with it: one command line for a job that may be killed and started again.
#   tune-or-resume OUT [options of `raylora tune`]
# A search that goes on does so with the settings it began with; one that has finished is left alone.
set -euo pipefail

out=${1:?give the output folder first}
shift
if [[ -f $out/summary.json ]]; then
  echo "$out: this search is finished; its answer is in $out/summary.json"
elif [[ -f $out/state.json ]]; then
  exec raylora resume "$out"
else
  exec raylora tune --out "$out" "$@"
fi
