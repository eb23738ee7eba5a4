# The dead-man of a host: heals it when nobody renews the lease. POSIX sh.
#
#   sh deadman.sh DIRECTORY SECONDS
#
# The lease is a file whose content changes with each renewal; it is looked at once a second, and the seconds are counted
# here, so that a clock that was set does not matter. When it stood still for SECONDS, every undo script is run, and this
# process ends. It also ends when the lease is gone: then somebody else has healed.
directory=$1 patience=$2
last= still=0
while sleep 1; do
    [ -e "$directory/lease" ] || exit 0
    now=$(cat "$directory/lease" 2>/dev/null)
    if [ "$now" = "$last" ]; then still=$((still + 1)); else still=0 last=$now; fi
    [ "$still" -lt "$patience" ] && continue
    for undo in "$directory"/*.undo; do
        [ -e "$undo" ] || continue
        sh "$undo" && rm -f "$undo"
    done
    # In this order: who finds the mark starts another dead-man, which needs the lease.
    rm -f "$directory/lease"
    echo "healed after $still s without a controller" > "$directory/dead-man-healed"
    exit 0
done
