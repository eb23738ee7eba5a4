# Cuts and heals the network of one host. POSIX sh.
#
#   mechanism                         prints what this host can do: nft, iptables or route
#   cut MECHANISM OWNER ADDRESS...    drop packets: nft and iptables those that come from ADDRESS, route those that go to it
#   heal MECHANISM OWNER ADDRESS...   undo one owner's cut; harmless when there is none
#   count MECHANISM OWNER             prints how many packets this owner's cut has dropped ("-": cannot tell)
#
# Every owner (a fault of the schedule) has rules of its own, so that healing one leaves the others. Other people's rules
# are never touched.
set -u
PATH=$PATH:/usr/sbin:/sbin
export PATH

action=$1
if [ "$action" = mechanism ]; then
    if nft list tables >/dev/null 2>&1; then
        echo nft
    elif iptables -w -n -L INPUT >/dev/null 2>&1; then
        echo iptables
    else
        echo route
    fi
    exit 0
fi
mechanism=$2 owner=$3
shift 3

family() { case $1 in *:*) echo 6 ;; *) echo 4 ;; esac; }
tables() { if [ "$(family "$1")" = 6 ]; then echo ip6tables; else echo iptables; fi; }
bits() { if [ "$(family "$1")" = 6 ]; then echo 128; else echo 32; fi; }
# Routes of different owners to one address differ in their metric; f01 has 1001.
metric() { number=$(printf %s "$owner" | tr -cd 0-9); number=${number#0}; echo $((1000 + ${number:-0})); }

heal() {
    case $mechanism in
        nft) nft delete table inet "raftbed_$owner" 2>/dev/null ;;
        iptables)
            for command in iptables ip6tables; do
                while $command -w -D INPUT -j "raftbed_$owner" 2>/dev/null; do :; done
                $command -w -F "raftbed_$owner" 2>/dev/null && $command -w -X "raftbed_$owner" 2>/dev/null
            done
            ;;
        route)
            for address in "$@"; do
                ip route del blackhole "$address/$(bits "$address")" metric "$(metric)" 2>/dev/null
            done
            ;;
    esac
    return 0
}

case $action in
    heal) heal "$@" ;;
    cut)
        heal "$@"
        case $mechanism in
            nft)
                {
                    echo "table inet raftbed_$owner {"
                    echo "  chain input {"
                    echo "    type filter hook input priority -300; policy accept;"
                    for address in "$@"; do
                        if [ "$(family "$address")" = 6 ]; then kind=ip6; else kind=ip; fi
                        echo "    $kind saddr $address counter drop"
                    done
                    echo "  }"
                    echo "}"
                } | nft -f - || exit 1
                ;;
            iptables)
                for address in "$@"; do
                    command=$(tables "$address")
                    $command -w -N "raftbed_$owner" 2>/dev/null && $command -w -I INPUT -j "raftbed_$owner"
                    $command -w -A "raftbed_$owner" -s "$address" -j DROP || exit 1
                done
                ;;
            route)
                for address in "$@"; do
                    ip route add blackhole "$address/$(bits "$address")" metric "$(metric)" || exit 1
                done
                # Connections that are open have their route cached.
                ip route flush cache 2>/dev/null || :
                ;;
            *) echo "no such mechanism: $mechanism" >&2; exit 2 ;;
        esac
        ;;
    count)
        case $mechanism in
            nft) nft list table inet "raftbed_$owner" | sed -n 's/.*counter packets \([0-9]*\).*/\1/p' ;;
            iptables)
                for command in iptables ip6tables; do $command -w -n -v -x -L "raftbed_$owner" 2>/dev/null; done |
                    awk '$3 == "DROP" { print $1 }'
                ;;
            *) echo 0 ;;
        esac | awk '{ total += $1 } END { print total + 0 }'
        ;;
    *) echo "no such action: $action" >&2; exit 2 ;;
esac
