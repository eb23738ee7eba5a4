# Says what a host is like, before a run: one line for each fact, "KEY VALUE". POSIX sh; changes nothing but for making
# and removing one file.
#
#   preflight.sh HOME PYTHON PORT...
home=$1 python=$2
shift 2
PATH=$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C

echo "user $(id -u) $(id -un 2>/dev/null)"

for program in $python tar gzip sha256sum timeout setsid mkdir awk sed; do
    command -v "$program" >/dev/null 2>&1 || echo "missing $program"
done
version=$("$python" -c 'import sys; print(sys.implementation.name, *sys.version_info[:3])' 2>&1 | tail -n 1) &&
    echo "python $version"
for other in 3.11 3.12 3.13 3.14 3.15; do
    command -v "python$other" >/dev/null 2>&1 && echo "other-python python$other"
done

# The nearest directory that exists; what home is missing is made there.
place=$home
while [ ! -d "$place" ] && [ -n "$place" ]; do place=${place%/*}; done
[ -n "$place" ] || place=/
free=$(df -Pk -- "$place" 2>/dev/null | awk 'NR == 2 {print $4}')
echo "free ${free:-0}"
probe=$place/.raftbed-probe.$$
if ! said=$( (umask 077 && echo x > "$probe") 2>&1); then echo "unwritable ${said##*: }"; fi
rm -f -- "$probe"

for tool in nft iptables ip; do command -v $tool >/dev/null 2>&1 && echo "tool $tool"; done

# The host's own addresses, in the kernel's table of local routes: every one stands before its "/32 host LOCAL".
awk '/32 host LOCAL/ {print "address", last} {last = $2}' /proc/net/fib_trie 2>/dev/null | sort -u

for port in "$@"; do
    hex=$(printf %04X "$port")
    if awk -v port="$hex" '$4 == "0A" && substr($2, length($2) - 3) == port {found = 1} END {exit !found}' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
        echo "taken $port"
    fi
done

# Leftovers: a node that runs, faults that are in force.
if [ -s "$home/run/node.pid" ]; then
    read -r pid begun < "$home/run/node.pid"
    line=$(cat "/proc/$pid/stat" 2>/dev/null) && {
        set -f
        # shellcheck disable=SC2086
        set -- ${line##*) }
        set +f
        # Zombies have ended; another start time is that of a stranger with the same pid.
        case $1 in Z | X) ;; *) [ "${20}" = "$begun" ] && echo "node $pid" &&
            echo "cluster $(sed -n 's/.*"cluster": *"\([^"\\]*\)".*/\1/p' "$home/run/node.json" 2>/dev/null)" ;; esac
    }
fi
for undo in "$home"/faults/*.undo; do [ -e "$undo" ] && echo "fault ${undo##*/}"; done
if command -v nft >/dev/null 2>&1; then
    nft list tables inet 2>/dev/null | while read -r _ _ name; do
        case $name in raftbed_*) echo "fault $name" ;; esac
    done
fi

# Last: so that as little time as can be goes by before the answer arrives.
echo "now $(date +%s.%N)"
