# Starts, watches and ends one process group on a host. POSIX sh; a call takes a few milliseconds.
#
#   start DIRECTORY LOG COMMAND...      detached, appending its output to LOG; prints "running PID START"
#   state PIDFILE                       prints "STATE PID START REASON"
#   signal PIDFILE SIGNAL SECONDS       to the whole group; waits for its effect; prints as `state` does
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

case $1 in
    start)
        directory=$2 log=$3
        shift 3
        cd -- "$directory" || exit 1
        umask 077
        setsid "$@" >> "$log" 2>&1 < /dev/null &
        pid=$!
        look "$pid" || now=0
        echo "running $pid $now"
        ;;
    state)
        examine "$2"
        echo "$state $pid $begun $reason"
        ;;
    signal)
        examine "$2"
        if [ "$state" = gone ]; then echo "$state $pid $begun $reason"; exit 0; fi
        # A detached process leads its group; one that does not is signalled alone.
        kill -s "$3" -- "-$pid" 2>/dev/null || kill -s "$3" "$pid" || exit 1
        # A stopped process takes SIGTERM only once it goes on.
        case $3 in KILL | TERM | INT | QUIT) kill -s CONT -- "-$pid" 2>/dev/null || kill -s CONT "$pid" 2>/dev/null ;; esac
        left=$(($4 * 50))
        while :; do
            judge
            case $3 in
                KILL | TERM | INT | QUIT) [ "$state" = gone ] && ! group_lives && break ;;
                STOP) [ "$state" != running ] && break ;;
                CONT) [ "$state" != stopped ] && break ;;
                *) break ;;
            esac
            left=$((left - 1))
            [ "$left" -gt 0 ] || { echo "$3 had no effect on process $pid within $4 s" >&2; exit 3; }
            sleep 0.02
        done
        echo "$state $pid $begun $reason"
        ;;
    *)
        echo "no such action: $1" >&2
        exit 2
        ;;
esac
