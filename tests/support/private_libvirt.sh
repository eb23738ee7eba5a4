#!/bin/sh
# Runs a command beside a libvirtd of its own, in network, mount and process namespaces of its own; all of it ends with
# the command. Needs root.
#
#   private_libvirt.sh DIRECTORY COMMAND...     DIRECTORY takes disks, logs and whatever libvirt keeps
set -eu
if [ "${1:-}" != --inside ]; then
    exec unshare --net --mount --pid --fork --kill-child --mount-proc sh "$0" --inside "$@"
fi
shift
directory=$1
shift
mount -t tmpfs tmpfs /run
mkdir -p /run/lock "$directory/etc"
for part in lib cache log; do
    mkdir -p "$directory/$part" "/var/$part/libvirt"
    mount --bind "$directory/$part" "/var/$part/libvirt"
done
cp -a /etc/libvirt/. "$directory/etc"
mount --bind "$directory/etc" /etc/libvirt
# Machines run as root of these namespaces, so that they can read their disks in a private directory.
cat >/etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
CONF
printf 'auth_unix_rw = "none"\nunix_sock_group = "root"\n' >/etc/libvirt/libvirtd.conf
ip link set lo up
libvirtd --daemon
until virsh --connect qemu:///system version >/dev/null 2>&1; do sleep 0.1; done
set +e
"$@"
status=$?
# What it leaves in the kernel outside these namespaces is nothing: process 1 of them ends here.
exit $status
