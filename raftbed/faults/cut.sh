# Cuts and heals the network of one host. POSIX sh.
#
#   cut MECHANISM OWNER PORT ADDRESS...    drop packets: nft and iptables those that come from ADDRESS, route those that
#                                          go to it
#   heal MECHANISM OWNER PORT ADDRESS...   undo one owner's cut; harmless when there is none
#   count MECHANISM OWNER                  one line per address: ADDRESS PACKETS ANSWERS, where PACKETS met this owner's
#                                          cut, and ANSWERS of them came from TCP port PORT (that of probes)
#   sweep                                  remove whatever an owner of any earlier run left: tables, chains, routes; print
#                                          what this host can do: nft, iptables or none
#
# Every owner (a fault of the schedule) has rules of its own, so that healing one leaves the others. Other people's rules
# are never touched.
set -u
PATH=$PATH:/usr/sbin:/sbin
export PATH

# Sets what depends on the family of address $1. Few processes are started here: on an emulated machine each takes 0.1 s.
examine() {
    case $1 in
        *:*) tables=ip6tables bits=128 kind=ip6 ;;
        *) tables=iptables bits=32 kind=ip ;;
    esac
}
# Routes of different owners to one address differ in their metric. Protocol 82 says that they are ours.
metric() { # a checksum of the whole owner, from 1 to 2^32 - 1
    # shellcheck disable=SC2046  # two words: checksum and length
    set -- $(printf %s "$owner" | cksum)
    echo $(($1 % 4294967295 + 1))
}

# The two chains of an owner: one in the table raw, which counts before anybody drops, one in the table filter.
remove_chains() { # COMMAND CHAIN
    while $1 -w -D INPUT -j "$2" 2>/dev/null; do :; done
    $1 -w -F "$2" 2>/dev/null && $1 -w -X "$2" 2>/dev/null
    while $1 -w -t raw -D PREROUTING -j "$2" 2>/dev/null; do :; done
    $1 -w -t raw -F "$2" 2>/dev/null && $1 -w -t raw -X "$2" 2>/dev/null
}

heal() {
    case $mechanism in
        nft) nft delete table inet "raftbed_$owner" 2>/dev/null ;;
        iptables) for command in iptables ip6tables; do remove_chains $command "raftbed_$owner"; done ;;
        route)
            number=$(metric)
            for address in "$@"; do
                examine "$address"
                ip route del blackhole "$address/$bits" metric "$number" 2>/dev/null
            done
            ;;
    esac
    return 0
}

cut_nft() {
    # All owners count before any of them drops, so that each can show what it meets where several overlap.
    count= drop=
    for address in "$@"; do
        examine "$address"
        count="$count
            $kind saddr $address tcp sport $port counter comment \"answers $address\"
            $kind saddr $address counter comment \"packets $address\""
        drop="$drop
            $kind saddr $address drop"
    done
    # The first two lines remove what there may be of an earlier cut of this owner.
    nft -f - <<RULES
add table inet raftbed_$owner
delete table inet raftbed_$owner
table inet raftbed_$owner {
    chain counting { type filter hook input priority -301; policy accept;$count
    }
    chain dropping { type filter hook input priority -300; policy accept;$drop
    }
}
RULES
}

cut_iptables() {
    for command in iptables ip6tables; do
        mine=
        for address in "$@"; do
            examine "$address"
            [ "$tables" = $command ] || continue
            if [ -z "$mine" ]; then
                $command -w -t raw -N "raftbed_$owner" && $command -w -N "raftbed_$owner" || return 1
            fi
            mine=yes
            $command -w -t raw -A "raftbed_$owner" -s "$address" -p tcp --sport "$port" || return 1
            $command -w -t raw -A "raftbed_$owner" -s "$address" || return 1
            $command -w -A "raftbed_$owner" -s "$address" -j DROP || return 1
        done
        if [ -n "$mine" ]; then
            $command -w -t raw -I PREROUTING -j "raftbed_$owner" && $command -w -I INPUT -j "raftbed_$owner" || return 1
        fi
    done
}

cut_route() {
    number=$(metric)
    for address in "$@"; do
        examine "$address"
        ip route add blackhole "$address/$bits" metric "$number" proto 82 || return 1
    done
}

count() {
    case $mechanism in
        nft)
            nft list table inet "raftbed_$owner" | sed -n \
                's/.*counter packets \([0-9]*\) .*comment "\([a-z]*\) \(.*\)".*/\2 \3 \1/p'
            ;;
        iptables)
            for command in iptables ip6tables; do $command -w -t raw -v -S "raftbed_$owner" 2>/dev/null; done | awk '
                $1 == "-A" {
                    what = "packets"; address = ""
                    for (i = 2; i < NF; i++) {
                        if ($i == "-s") { address = $(i + 1); sub("/.*", "", address) }
                        if ($i == "--sport") what = "answers"
                        if ($i == "-c") number = $(i + 1)
                    }
                    if (address) print what, address, number
                }'
            ;;
    esac | awk '
        $1 == "packets" { packets[$2] += $3 }
        $1 == "answers" { answers[$2] += $3 }
        END { for (address in packets) print address, packets[address], answers[address] + 0 }'
}

sweep() {
    nft list tables inet 2>/dev/null | while read -r _ _ name; do
        case $name in raftbed_*) nft delete table inet "$name" ;; esac
    done
    for command in iptables ip6tables; do
        $command -w -S 2>/dev/null | sed -n 's/^-N \(raftbed_[A-Za-z0-9]*\)$/\1/p' | while read -r name; do
            remove_chains $command "$name"
        done
    done
    for address_family in -4 -6; do
        ip $address_family route show type blackhole proto 82 2>/dev/null | while read -r kind address rest; do
            # shellcheck disable=SC2086  # the rest is words: "proto 82 metric 1234"
            [ "$kind" = blackhole ] && ip $address_family route del blackhole "$address" $rest 2>/dev/null
        done
    done
    if nft list tables >/dev/null 2>&1; then
        echo nft
    elif iptables -w -n -L INPUT >/dev/null 2>&1; then
        echo iptables
    else
        echo none
    fi
}

action=$1
case $action in
    sweep) sweep ;;
    count) mechanism=$2 owner=$3; count ;;
    heal) mechanism=$2 owner=$3 port=$4; shift 4; heal "$@" ;;
    cut)
        mechanism=$2 owner=$3 port=$4
        shift 4
        [ "$mechanism" = nft ] || heal "$@"
        case $mechanism in
            nft | iptables | route) "cut_$mechanism" "$@" || exit 1 ;;
            *) echo "no such mechanism: $mechanism" >&2; exit 2 ;;
        esac
        ;;
    *) echo "no such action: $action" >&2; exit 2 ;;
esac
