#!/bin/sh
# Makes a box for vagrant-libvirt out of Debian's packages, with mmdebstrap: nothing else is downloaded.
#
#   make_box.sh DIRECTORY     leaves DIRECTORY/raftbed.box
#
# Its disk is one file system without a boot loader; the kernel lies beside it in the box and is booted directly.
set -eu
target=$1
here=$(mktemp -d "$target/box.XXXXXX")
trap 'rm -rf "$here"' EXIT
packages=linux-image-cloud-amd64,initramfs-tools,systemd-sysv,udev,dbus,ifupdown,isc-dhcp-client,openssh-server,sudo
packages=$packages,python3,iproute2,nftables,iptables,iputils-ping,procps,ca-certificates
# Vagrant's well-known key, for the first login only: `vagrant up` puts a new one in its place.
key='ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key'
mmdebstrap --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools"' \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/bash vagrant' \
    --customize-hook='chroot "$1" passwd --delete vagrant >/dev/null' \
    --customize-hook='echo "vagrant ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/vagrant"; chmod 440 "$1/etc/sudoers.d/vagrant"' \
    --customize-hook='install -d -m 700 "$1/home/vagrant/.ssh"; echo "'"$key"'" >"$1/home/vagrant/.ssh/authorized_keys"; chmod 600 "$1/home/vagrant/.ssh/authorized_keys"; chroot "$1" chown -R vagrant:vagrant /home/vagrant/.ssh' \
    --customize-hook='printf "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n" >"$1/etc/network/interfaces"' \
    --customize-hook='echo "/dev/vda / ext4 defaults,noatime 0 1" >"$1/etc/fstab"; echo raftbed >"$1/etc/hostname"' \
    --customize-hook='printf "UseDNS no\nPasswordAuthentication no\n" >"$1/etc/ssh/sshd_config.d/raftbed.conf"' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*; printf "[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n[Install]\nWantedBy=multi-user.target\n" >"$1/etc/systemd/system/host-keys.service"; chroot "$1" systemctl -q enable host-keys.service' \
    --customize-hook='chroot "$1" systemctl -q mask systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer systemd-networkd-wait-online.service' \
    bookworm "$here/root"
cp "$here"/root/boot/vmlinuz-* "$here/vmlinuz"
cp "$here"/root/boot/initrd.img-* "$here/initrd"
mkfs.ext4 -q -d "$here/root" "$here/disk" 2G
qemu-img convert -O qcow2 "$here/disk" "$here/box.img"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 2}' >"$here/metadata.json"
cat >"$here/Vagrantfile" <<'RUBY'
Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd", __dir__)
    libvirt.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"
  end
end
RUBY
tar -C "$here" -czf "$target/raftbed.box" metadata.json Vagrantfile box.img vmlinuz initrd
