#!/usr/bin/env bash
# Waits for the cloud to say that it takes this machine back, and tells raylora's trials by the notice file: each then
# writes its checkpoint at its next step, and goes on from it elsewhere. AWS says so two minutes ahead, GCP half a minute.
#   spot-notice.sh aws|gcp    every machine starts one; a second one leaves at once
set -euo pipefail

cloud=${1:?aws or gcp}
notice=${RAYLORA_NOTICE_FILE:-${TMPDIR:-/tmp}/raylora-notice}
metadata=${SPOT_METADATA:-http://169.254.169.254}   # both clouds' own address; another one for a test

exec 9> "$notice.lock"
flock --nonblock 9 || exit 0
rm -f "$notice"   # of an earlier life: a machine that was stopped and started again keeps its disk

ask() { curl --silent --fail --max-time 5 "$@"; }

aws_takes_it() {
  local token
  token=$(ask --request PUT --header "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/latest/api/token") &&
    ask --output /dev/null --header "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action"
}

gcp_takes_it() {
  [[ $(ask --header "Metadata-Flavor: Google" "$metadata/computeMetadata/v1/instance/preempted") == TRUE ]]
}

until "${cloud}_takes_it"; do
  sleep "${SPOT_EVERY_S:-5}"
done
touch "$notice"
