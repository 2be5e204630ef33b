#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The agent's Debian package on a machine with systemd, in the guest: `cargo xtask test systemd` runs it there.
#
#   systemd.sh ROOT.tar PACKAGE.deb    process 1 of the guest is xtask's, so systemd is process 1 of namespaces of its own, over a clean
#     └─ systemd                       Debian that is unpacked in memory. The kernel, and with it eBPF, is the guest's.
#          └─ systemd.sh inside        a service of its own there; its exit code is the machine's
#
# That the agent's unit does not stand in its way is told by an agent without a unit: what the one attaches, the other has to attach, too.
set -euo pipefail

readonly URL=127.0.0.1/10477

outside() {
    local archive=$1 package=$2 root=/run/clean box=/sys/fs/cgroup/box
    # What migrates, so that the probes of drivers have something to hang on.
    modprobe -a vfio-pci mtty
    mkdir "$root"
    mount -t tmpfs -o size=900m clean "$root"
    tar --numeric-owner -xf "$archive" -C "$root"
    cp "$package" "$root/migscope.deb"
    cp "$0" "$root/systemd.sh"
    cat >"$root/etc/systemd/system/inside.service" <<-'UNIT'
	[Unit]
	After=basic.target
	[Service]
	Type=oneshot
	Environment=LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
	ExecStart=/bin/bash -c '/bin/bash /systemd.sh inside >/said 2>&1; systemctl exit $?'
	TimeoutStartSec=400
	[Install]
	WantedBy=multi-user.target
	UNIT
    ln -s ../inside.service "$root/etc/systemd/system/multi-user.target.wants/inside.service"
    # A network and a machine's id are there; nobody is to wait for them.
    echo guest >"$root/etc/hostname"
    for part in proc sys dev run; do mkdir -p "$root/$part"; done
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs run "$root/run"
    # Controllers, for MemoryMax and TasksMax.
    echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
    mkdir "$box"
    local code=0
    # Nobody but systemd is in the box: a group that gives controllers on has no processes of its own.
    env -i container=migscope PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        unshare --mount --pid --uts --ipc --fork --kill-child /bin/bash -c "
            echo 0 >$box/cgroup.procs && exec unshare --cgroup /bin/bash -c '
                umount $root/sys/fs/cgroup && mount -t cgroup2 cgroup2 $root/sys/fs/cgroup &&
                mount -t proc proc $root/proc &&
                exec chroot $root /lib/systemd/systemd --log-target=console --log-level=warning --show-status=no'
        " </dev/null >"$root/console" 2>&1 || code=$?
    if [ -s "$root/said" ]; then cat "$root/said"; else code=1; fi
    if [ "$code" != 0 ]; then
        echo "systemd ended with $code; the end of its console:"
        tail -n 40 "$root/console"
    fi
    return "$code"
}

# A page of the agent, without a program to fetch it with.
page() {
    local line body=
    exec 3<>"/dev/tcp/${2:-$URL}"
    printf 'GET %s HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n' "$1" >&3
    body=$(cat <&3)
    exec 3>&-
    read -r line <<<"$body"
    [[ $line == *' 200 '* ]] || { echo "GET $1: $line" >&2; return 1; }
    printf '%s\n' "$body"
}

# Which probes it says are attached, and which not, once it has tried: `1` or `0` behind each name.
probes() {
    page /metrics "${1:-$URL}" | tr -d '\r' | grep '^migscope_probe_attached{' | sort
}

until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            echo "this did not come true: $*"
            "$@" || true
            journalctl --no-pager -n 40 || true
            return 1
        fi
        sleep 0.2
    done
}

is_running() { [ "$(systemctl is-active migscope.service)" = active ] && page /readyz; }

alike() {
    probes 127.0.0.1/10478 >/free
    probes >/confined
    [ "$(grep -c ' 1$' /free)" -ge 10 ] && cmp /free /confined
}

all_attached() { [ "$(attached)" -ge "$1" ]; }

attached() { probes "$@" | grep -c ' 1$' || true; }

inside() {
    dpkg --install /migscope.deb
    # Installing it has started it.
    until_true 60 is_running
    echo "ok   an installed package's service runs and answers"

    local pid
    pid=$(systemctl show --value --property MainPID migscope.service)
    ! grep -q '^Uid:[[:space:]]*0' "/proc/$pid/status" || { echo "it runs as root"; return 1; }
    for field in 'NoNewPrivs:1' 'Seccomp:2'; do
        for status in "/proc/$pid/task/"*/status; do
            grep -q "^${field%%:*}:[[:space:]]*${field##*:}$" "$status" || { echo "$status: no $field"; return 1; }
        done
    done
    # CAP_BPF and CAP_PERFMON are bits 39 and 38; one thread keeps them.
    local kept
    kept=$(grep -h '^CapEff:' "/proc/$pid/task/"*/status | awk '{print $2}' | sort | uniq -c | tr -s ' ' | tr '\n' ';')
    [[ $kept =~ ^\ [0-9]+\ 0000000000000000\;\ 1\ 000000c000000000\;$ ]] || { echo "capabilities: $kept"; return 1; }
    echo "ok   it is no root, and one thread of it has CAP_BPF and CAP_PERFMON"

    # What an agent without a unit attaches here.
    migscope agent --privileges keep --web.listen-address 127.0.0.1:10478 >/free.log 2>&1 &
    local free=$!
    until_true 60 page /readyz 127.0.0.1/10478
    # Some are attached when a driver is found.
    until_true 30 alike || { diff /free /confined || echo "the unit keeps it from what a free agent attaches (<)"; return 1; }
    kill "$free"
    wait "$free" || true
    local count
    count=$(grep -c ' 1$' /free)
    ((count >= 10)) || { echo "a free agent attaches $count probes only:"; cat /free; return 1; }
    echo "ok   in its unit it attaches what it attaches outside of it: $count of $(wc -l </free) probes"

    # That this would be noticed.
    mkdir /run/systemd/system/migscope.service.d
    printf '[Service]\nSystemCallFilter=~perf_event_open\n' >/run/systemd/system/migscope.service.d/tight.conf
    systemctl daemon-reload
    systemctl restart migscope.service
    until_true 60 is_running
    sleep 5
    local fewer
    fewer=$(attached)
    ((fewer < count)) || { echo "without perf_event_open it attaches $fewer of $count"; return 1; }
    rm -r /run/systemd/system/migscope.service.d
    systemctl daemon-reload
    echo "ok   without perf_event_open it would attach $fewer"

    # What it takes without a device; the maps of its probes are counted with the unit's memory.
    systemctl restart migscope.service
    until_true 60 is_running
    until_true 30 all_attached "$count"
    pid=$(systemctl show --value --property MainPID migscope.service)
    echo "measured: idle_unit_memory $(($(systemctl show --value --property MemoryCurrent migscope.service) / 1024)) KiB"
    echo "measured: idle_unit_rss $(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status") KiB"
    echo "measured: idle_unit_series $(page /metrics | grep -c '^[a-z].* ') series"

    # Its own folders, a reload, and the socket.
    sed -i 's|^#: dir = .*|dir = "/var/lib/migscope"|; s/^systemd-socket = false/systemd-socket = true/' \
        /etc/migscope/migscope.toml
    systemctl stop migscope.service
    systemctl start migscope.socket migscope.service
    until_true 60 is_running
    [ -s /var/lib/migscope/agent.migscope ] || { echo "it records nothing"; ls -la /var/lib/migscope/; return 1; }
    systemctl reload migscope.service
    until_true 60 is_running
    echo "ok   it records in its own folder, takes systemd's socket, and reads its configuration again"

    systemd-analyze security migscope.service --no-pager | tail -n 1
    dpkg --purge migscope
    [ ! -e "/proc/$(systemctl show --value --property MainPID migscope.service)/exe" ] || { echo "it still runs"; return 1; }
    [ ! -e /var/lib/private/migscope ] || { echo "its recordings are still there"; return 1; }
    echo "ok   purged, it has stopped and left nothing"
}

case $1 in
inside) inside ;;
*) outside "$@" ;;
esac
