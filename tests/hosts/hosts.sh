#!/bin/bash
# Real systemd hosts on one machine: each has its own network, processes, mounts, name and cgroups, a disk that is an overlay of the machine's
# own, systemd as process 1, sshd with its own host key, and a user `deploy` who may do nothing as root yet.
#
#   hosts.sh net-up              a switch, and this machine's own port on it
#   hosts.sh up NAME IP          a new host, booted; returns when sshd answers
#   hosts.sh unplug|plug NAME    its network cable
#   hosts.sh sh NAME COMMAND...  run something there as root
#   hosts.sh init NAME           print the process id of its systemd, as this machine counts
#   hosts.sh down NAME           end it, and remove all of it
#   hosts.sh net-down            end all hosts and the switch
#
# HOSTS_DIR: a private directory of this run. HOSTS_NET: the first three numbers of the addresses. HOSTS_IF: this machine's port (at most 12
# characters). HOSTS_OWNER: a process; everything goes when that ends. HOSTS_SHARED: directories of this machine that every host has, too, as
# lines of where it is and where it is there, with a tab between; not below /tmp, /run or /dev.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
D=$(realpath -m "${HOSTS_DIR:?}")
NET=${HOSTS_NET:?}
IF=${HOSTS_IF:?}
ME=$(realpath "$0")
N=${2:-}
CG=$(findmnt -nt cgroup2 -o TARGET | head -1)
CG=${CG:?no cgroup2 is mounted}/$IF-$N

# A process is remembered with its namespace, so that no other one that got its number is ever taken for it.
remember() { # FILE PID KIND
    local ns
    ns=$(readlink "/proc/$2/ns/$3")
    echo "$2 $ns" >"$D/$1"
}
remembered() { # FILE KIND: print the process id; status 1 when it has ended
    local p ns
    { read -r p ns <"$D/$1"; } 2>/dev/null && [ -n "$ns" ] && [ "$(readlink "/proc/$p/ns/$2")" = "$ns" ] && echo "$p"
}
end() { # FILE KIND
    local p
    p=$(remembered "$1" "$2") || return 0
    kill -9 "$p"
    for _ in {1..250}; do
        remembered "$1" "$2" >/dev/null || return 0
        sleep .02
    done
    echo "$1 (process $p) lives on" >&2
    return 1
}
hold_open() { # FILE KIND COMMAND...: a namespace lives as long as a process in it; COMMAND ends in a sleep
    local file=$1 kind=$2 p
    shift 2
    setsid "$@" </dev/null >/dev/null 2>&1 &
    p=$!
    for _ in {1..200}; do
        [ "$(cat "/proc/$p/comm")" = sleep ] && break
        sleep .02
    done
    remember "$file" $p "$kind"
}
on_switch() { nsenter -t "$(remembered switch net)" -n "$@"; }

# From here on in the host's own namespaces; its systemd is what this ends in.
init() {
    local disk=$D/$N/disk ip u
    ip=$(cat "$D/$N/ip")
    mkdir -p "$disk"/{upper,work,root,log/journal,libsystemd,units}
    hostname "$N"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$disk/root"
    cd "$disk/root"
    mountpoint -q . || exit 9
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    # Before systemd begins, because it empties /tmp.
    for d in tmp run; do mount -t tmpfs -o size=256m tmpfs $d; done
    chmod 1777 tmp
    chmod 755 run
    mkdir run/lock
    mount --bind "$disk/log" var/log
    mount --bind "$disk/libsystemd" var/lib/systemd
    mount --bind "$disk/units" etc/systemd/system
    mount -t tmpfs -o mode=755 tmpfs dev
    mkdir dev/{pts,shm,mqueue}
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    while read -r name minor; do mknod -m 666 "dev/$name" c 1 "$minor"; done <<<$'null 3\nzero 5\nfull 7\nrandom 8\nurandom 9'
    mknod -m 666 dev/tty c 5 0
    cp /proc/sys/kernel/random/uuid run/boot_id
    mount --bind run/boot_id proc/sys/kernel/random/boot_id
    mount --rbind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    [ ! -e proc/sysrq-trigger ] || mount --bind dev/null proc/sysrq-trigger
    while IFS=$'\t' read -r from to; do
        [ -n "$from" ] || continue
        mkdir -p ".$to"
        mount --bind "$from" ".$to"
    done <<<"${HOSTS_SHARED:-}"
    mkdir run/new
    cp "$D/$N/hostkey" "$D/id.pub" run/new/

    # From here on the machine's own root is out of reach.
    mkdir run/old
    pivot_root . run/old
    cd /
    umount -l /run/old
    rmdir /run/old

    echo "$N" >/etc/hostname
    tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    : >/etc/fstab
    rm -f /etc/resolv.conf /etc/ssh/ssh_host_* /etc/sudoers.d/*
    : >/etc/resolv.conf
    printf '127.0.0.1 localhost\n%s %s\n' "$ip" "$N" >/etc/hosts
    install -m 600 /run/new/hostkey /etc/ssh/ssh_host_ed25519_key
    id deploy >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' deploy
    usermod -G systemd-journal deploy
    mkdir -p /etc/ssh/keys
    for u in root deploy; do cp /run/new/id.pub /etc/ssh/keys/$u; done
    printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'AuthorizedKeysFile /etc/ssh/keys/%u' 'UsePAM yes' 'UseDNS no' \
        'PasswordAuthentication no' 'KbdInteractiveAuthentication no' 'PermitRootLogin prohibit-password' 'LogLevel VERBOSE' >/etc/ssh/sshd_config
    cd /etc/systemd/system
    mkdir -p multi-user.target.wants ../system-generators
    ln -sf /dev/null ../system-generators/systemd-sysv-generator
    for u in systemd-{udevd,binfmt,modules-load,sysctl,timesyncd,logind,journald-audit}.{service,socket} getty.target console-getty.service; do
        ln -s /dev/null $u
    done
    ln -s /lib/systemd/system/ssh.service multi-user.target.wants/
    rm -rf /run/new
    # Of what reaches beyond the host, such as the machine's clock, its systemd may do nothing.
    exec env -i container=other PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-syslog \
        /lib/systemd/systemd --system --unit=multi-user.target --show-status=no
}

case ${1:-} in
net-up)
    [ ! -e "/sys/class/net/$IF" ] || { echo "$IF is taken" >&2; exit 1; }
    mkdir -p "$D"
    chmod 711 "$D"
    ssh-keygen -qt ed25519 -N '' -f "$D/id"
    hold_open switch net unshare --net sleep infinity
    s=$(remembered switch net)
    # Of two runs that want the same port at the same moment one fails here, and leaves the other's alone.
    ip link add "$IF" type veth peer name up0 netns "$s"
    touch "$D/port"
    on_switch sh -c 'ip link add br0 type bridge && ip link set br0 up && ip link set up0 master br0 up'
    ip addr add "$NET.1/24" dev "$IF"
    ip link set "$IF" up
    if [ -n "${HOSTS_OWNER:-}" ]; then
        setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" net-down' _ "$HOSTS_OWNER" "$ME" </dev/null >/dev/null 2>&1 &
        remember reaper $! net
    fi
    ;;
up)
    mkdir -p "$D/$N/disk" "$CG"
    echo "$3" >"$D/$N/ip"
    ssh-keygen -qt ed25519 -N '' -C "$N" -f "$D/$N/hostkey"
    # Its disk lives in memory, and its network in the same namespace.
    hold_open "$N/chassis" net unshare --mount --net \
        sh -c 'mount -t tmpfs -o size=512m,mode=755 disk "$0" && ip link set lo up && exec sleep infinity' "$D/$N/disk"
    c=$(remembered "$N/chassis" net)
    ip link add eth0 netns "$c" type veth peer name "p-$N" netns "$(remembered switch net)"
    on_switch ip link set "p-$N" master br0 up
    nsenter -t "$c" -n sh -c 'ip addr add "$0/24" dev eth0 && ip link set eth0 up' "$3"
    setsid nsenter -t "$c" -m -n unshare --mount --pid --fork --uts --ipc "$ME" _init "$N" </dev/null >>"$D/$N/boot.log" 2>&1 &
    u=$!
    i=
    for _ in {1..200}; do
        i=$(tr -d ' ' 2>/dev/null <"/proc/$u/task/$u/children" || :)
        [ -n "$i" ] && [ "$(readlink "/proc/$i/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] && break
        sleep .02
    done
    remember "$N/init" "$i" pid
    for _ in {1..400}; do
        timeout 1 bash -c 'read -r b </dev/tcp/$0/22 && [[ $b = SSH-* ]]' "$3" 2>/dev/null && exit 0
        remembered "$N/init" pid >/dev/null || break
        sleep .05
    done
    echo "$N: sshd does not answer" >&2
    cat "$D/$N/boot.log" >&2
    exit 1
    ;;
_init)
    # Its own cgroup before a namespace is made of it, or two hosts would share one tree.
    echo 0 >"$CG/cgroup.procs"
    exec unshare --cgroup "$ME" _init2 "$N"
    ;;
_init2) init ;;
plug) on_switch ip link set "p-$N" up ;;
unplug) on_switch ip link set "p-$N" down ;;
init) remembered "$N/init" pid ;;
sh)
    shift 2
    exec nsenter -t "$(remembered "$N/init" pid)" -a "$@"
    ;;
down)
    end "$N/init" pid
    end "$N/chassis" net
    for _ in {1..100}; do
        [ -d "$CG" ] || break
        find "$CG" -depth -type d -exec rmdir {} + 2>/dev/null || sleep .05
    done
    [ ! -d "$CG" ] || { echo "$CG is left" >&2; exit 1; }
    rm -rf --one-file-system "${D:?}/${N:?}"
    ;;
net-down)
    for f in "$D"/*/ip; do [ ! -e "$f" ] || "$ME" down "$(basename "$(dirname "$f")")"; done
    [ ! -e "$D/port" ] || [ ! -e "/sys/class/net/$IF" ] || ip link del "$IF"
    end switch net
    r=$(remembered reaper net) && [ "$r" != $$ ] && kill -9 -- "-$r"
    rm -f "$D"/{switch,reaper,port}
    ;;
*)
    sed -n '5,12s/^# *//p' "$ME"
    exit 2
    ;;
esac
