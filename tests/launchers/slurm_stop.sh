#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Stops what slurm_start.sh started in a folder, jobs and all that they left running first. Keeps the folder, which has
# the logs. Fine to call when nothing, or only a part, runs.
#
#   tests/launchers/slurm_stop.sh FOLDER
set -euo pipefail
work=$(realpath -m -- "${1:?a folder}")
[[ -f $work/slurm.conf ]] || exit 0
unset "${!SLURM_@}"
export SLURM_CONF=$work/slurm.conf

# One that has ended and that nobody has asked for yet (state Z) still has an id, and `kill -0` says yes.
runs() { grep -q '^State:[[:space:]][^ZX]' "/proc/$1/status" 2>/dev/null; }
ended() {  # ended SECONDS PID
  local end=$((SECONDS + $1))
  while runs "$2"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}
# What has our SLURM_CONF in its environment, and was begun by slurmd: its slurmstepd, or a task.
begun() {
  local folder
  for folder in /proc/[0-9]*; do
    grep -zqxF "SLURM_CONF=$SLURM_CONF" "$folder/environ" || continue
    if grep -qx slurmstepd "$folder/comm" || grep -zq '^SLURM_TASK_PID=' "$folder/environ"; then
      echo "${folder#/proc/}"
    fi
  done 2>/dev/null
}
no_jobs_in() {  # no_jobs_in SECONDS
  local end=$((SECONDS + $1))
  while [[ -n $(timeout 10 squeue -h || echo unknown) ]]; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# Waiting jobs go first, or they would start in the place of those that run.
if timeout 10 scontrol ping >/dev/null 2>&1; then
  for what in --state=PENDING "--full --signal=KILL" ""; do
    # shellcheck disable=SC2086  # two words
    timeout 20 scancel --user=root $what || true
  done
  no_jobs_in 4 || true
fi
# What a task started in a session of its own is not Slurm's any more, and its job waits for it.
for pid in $(begun); do kill -KILL "$pid" 2>/dev/null || true; done

failed=0
for name in slurmd slurmctld munged; do
  pid=$(cat "$work/$name.pid" 2>/dev/null) || continue
  # The number may be another process's by now.
  grep -qx "$name" "/proc/$pid/comm" 2>/dev/null || continue
  kill -TERM "$pid"
  ended 20 "$pid" || { kill -KILL "$pid"; ended 5 "$pid"; } || failed=1
done
exit $failed
