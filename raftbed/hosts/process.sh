# Starts, watches and ends one process group on a host. POSIX sh; a call takes a few milliseconds.
#
#   start DIRECTORY LOG PIDFILE COMMAND...      detached, appending its output to LOG; prints "running PID START", and
#                                               writes it to PIDFILE, unless that is ""
#   state PIDFILE                       prints "STATE PID START REASON"
#   signal PIDFILE SIGNAL SECONDS       to the whole group; waits for its effect; prints as `state` does
#   end PIDFILE SECONDS                 KILL to the whole group, and to nodes in the directory of PIDFILE that no pid file
#                                       names; prints as `state` does, then "stray PID" for each of those
#
# A pid file holds "PID START", START being field 22 of /proc/PID/stat. A process of another start time is a stranger
# that got the same pid: it is never touched. STATE is running, stopped or gone.

# Sets `now` and `mode` to start time and state letter of process $1; fails when there is none.
look() {
    line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name, in parentheses, may hold anything: cut behind the last one.
    set -f
    # shellcheck disable=SC2086
    set -- ${line##*) }
    set +f
    mode=$1 now=${20}
}

# Sets `state` and `reason` of process $pid that began at $begun.
judge() {
    state=gone
    if ! look "$pid"; then reason="no such process"; return; fi
    if [ "$now" != "$begun" ]; then reason="its pid belongs to another process now"; return; fi
    case $mode in
        Z | X) reason="ended" ;;
        T | t) state=stopped reason= ;;
        *) state=running reason= ;;
    esac
}

# Sets `pid`, `begun`, `state` and `reason` of the process in the pid file $1.
examine() {
    pid=0 begun=0 state=gone reason=
    if ! [ -s "$1" ]; then reason="no pid file"; return; fi
    read -r pid begun < "$1" || :
    case $pid in "" | 0* | *[!0-9]*) reason="malformed pid file" ;; esac
    case $begun in "" | *[!0-9]*) reason="malformed pid file" ;; esac
    if [ -n "$reason" ]; then pid=0 begun=0; return; fi
    judge
}

# Whether anything but zombies is left of the process group that $pid led.
group_lives() {
    kill -s 0 -- "-$pid" 2>/dev/null || return 1
    for stat in /proc/[0-9]*/stat; do
        line=$(cat "$stat" 2>/dev/null) || continue
        set -f
        # shellcheck disable=SC2086
        set -- ${line##*) }
        set +f
        case $1 in Z | X) continue ;; esac
        if [ "$3" = "$pid" ]; then return 0; fi
    done
    return 1
}

# Signals the group of the process in the pid file $1 with $2 and waits $3 seconds for its effect.
signal_group() {
    examine "$1"
    if [ "$state" = gone ]; then return 0; fi
    # A detached process leads its group; one that does not is signalled alone.
    kill -s "$2" -- "-$pid" 2>/dev/null || kill -s "$2" "$pid" || exit 1
    # A stopped process takes SIGTERM only once it goes on.
    case $2 in KILL | TERM | INT | QUIT) kill -s CONT -- "-$pid" 2>/dev/null || kill -s CONT "$pid" 2>/dev/null ;; esac
    left=$(($3 * 50))
    while :; do
        judge
        case $2 in
            KILL | TERM | INT | QUIT) [ "$state" = gone ] && ! group_lives && break ;;
            STOP) [ "$state" != running ] && break ;;
            CONT) [ "$state" != stopped ] && break ;;
            *) break ;;
        esac
        left=$((left - 1))
        [ "$left" -gt 0 ] || { echo "$2 had no effect on process $pid within $3 s" >&2; exit 3; }
        sleep 0.02
    done
}

# Kills whatever runs in the directory $1 with "$1/node.json" among the words of its command: a node that no pid file
# names any more, because its directory was made anew, say. Processes of containers and local hosts, which may see another
# directory by that name, are not touched.
end_strays() {
    mine=$(readlink /proc/self/ns/mnt) || return 0
    # shellcheck disable=SC2012  # one process for all links; a line holds nothing of a user's before " -> "
    ls -ld /proc/[0-9]*/cwd 2>/dev/null | while IFS= read -r line; do
        line=${line#* /proc/}
        pid=${line%%/*}
        case ${line#*/cwd -> } in "$1" | "$1 (deleted)") ;; *) continue ;; esac
        [ "$(readlink "/proc/$pid/ns/mnt")" = "$mine" ] || continue
        tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null | grep -qxF -e "$1/node.json" || continue
        look "$pid" || continue
        begun=$now
        kill -s KILL "$pid" 2>/dev/null
        left=$(($2 * 50))
        while judge && [ "$state" != gone ] && [ "$left" -gt 0 ]; do left=$((left - 1)); sleep 0.02; done
        echo "stray $pid"
    done
}

case $1 in
    start)
        directory=$2 log=$3 pid_file=$4
        shift 4
        cd -- "$directory" || exit 1
        umask 077
        setsid "$@" >> "$log" 2>&1 < /dev/null &
        pid=$!
        look "$pid" || now=0
        # At once, although the process writes it too: until it comes to that, it is to be found all the same.
        [ -z "$pid_file" ] || echo "$pid $now" > "$pid_file"
        echo "running $pid $now"
        ;;
    state)
        examine "$2"
        echo "$state $pid $begun $reason"
        ;;
    signal)
        signal_group "$2" "$3" "$4"
        echo "$state $pid $begun $reason"
        ;;
    end)
        signal_group "$2" KILL "$3"
        echo "$state $pid $begun $reason"
        end_strays "${2%/*}" "$3"
        ;;
    *)
        echo "no such action: $1" >&2
        exit 2
        ;;
esac
