#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Starts a real Slurm of one node (munged, slurmctld, slurmd) for tests, as root, with all it reads and writes below one
# folder: nothing in /etc or /run, no systemd, no cgroups, no accounting. Several may run beside each other.
#
#   eval "$(tests/launchers/slurm_start.sh FOLDER)"     sets SLURM_CONF, by which srun, sbatch and the others find it
#   tests/launchers/slurm_stop.sh FOLDER                must follow, whatever happened
#
# CPUS is how many the node says that it has (4; more than there are is fine). Exit code 3: this machine cannot, and why.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin

cannot() { echo "slurm_start: $*" >&2; exit 3; }
work=$(realpath -m -- "${1:?a folder}")
((EUID == 0)) || cannot "only root may start tasks as their users"
for tool in munged slurmctld slurmd srun python3; do
  command -v "$tool" >/dev/null || cannot "found no $tool; scripts/setup.sh installs slurm-wlm and munge"
done
[[ $work =~ ^[A-Za-z0-9._/+-]{1,80}$ ]] || cannot "$work: slurm.conf has no quotes, and a socket's path at most 108 bytes"
[[ ! -e $work ]] || cannot "$work is there already: what an earlier Slurm left in it would bring back its jobs"
unset "${!SLURM_@}"  # of a job that this may run in

mkdir -p "$work"/{state,spool,munge}
chmod 755 "$work" "$work/munge"  # munged wants a folder that all may enter and none but the owner may write to
chmod 700 "$work/state"

# Ports below those that outgoing connections get: slurmctld's, slurmd's, and a range for srun.
port=$(python3 - <<'PY'
import random, socket

def is_free(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0

print(next(p for p in iter(lambda: random.randrange(20000, 32000), 0) if all(map(is_free, range(p, p + 202)))))
PY
)
# The daemons listen where the machine's name resolves to. With one that does not resolve, the setting makes clients wait.
listen=
if [[ $(getent ahostsv4 "$(hostname)") == 127.* ]]; then listen=CommunicationParameters=NoCtldInAddrAny,NoInAddrAny; fi

cat >"$work/slurm.conf" <<CONF
ClusterName=crossdock
SlurmctldHost=localhost(127.0.0.1)
NodeName=localhost NodeAddr=127.0.0.1 CPUs=${CPUS:-4} RealMemory=1024 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SrunPortRange=$((port + 2))-$((port + 201))
$listen
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
# A task whose parent has died still ends with its job.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# A job starts at once and not with the next round of the scheduler.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
# As many CPUs as we say, and not as many as there are.
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
MinJobAge=3600
KillWait=2
CONF
export SLURM_CONF=$work/slurm.conf

# daemon COMMAND...: in a session of its own, so that a Ctrl-C for the tests is not one for it.
daemon() { setsid "$@" </dev/null >>"$work/daemons.log" 2>&1 & }
# answers SECONDS COMMAND...: waits until the command succeeds.
answers() {
  local end=$((SECONDS + $1))
  until timeout 10 "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}
failed() {
  echo "slurm_start: $*" >&2
  tail -n 15 "$work"/*.log >&2
  "$here/slurm_stop.sh" "$work"
  exit 1
}

(umask 077 && head -c 1024 /dev/urandom >"$work/munge/key")
daemon munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" \
  --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munge/seed"
answers 20 munge --socket="$work/munge/socket" -n || failed "munged did not answer"
daemon slurmctld -D -i
answers 30 scontrol ping || failed "slurmctld did not answer"
daemon slurmd -D
answers 60 sh -c '[ "$(sinfo -h -o %T)" = idle ]' || failed "the node did not become idle"
echo "export SLURM_CONF=$SLURM_CONF"
