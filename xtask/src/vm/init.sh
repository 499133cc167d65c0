#!/bin/sh
# The guest's first process: mounts, inserts the modules, runs the test, says how it went.
export PATH=/bin:/busybox LD_LIBRARY_PATH=/lib HOME=/root

# busybox has its own `ip` and `tc`: the real ones in /bin come first, the rest is linked apart.
/bin/busybox mkdir -p /busybox
/bin/busybox --install -s /busybox

mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts none /dev/pts
mount -t tmpfs none /dev/shm
mount -t proc none /proc
mount -t sysfs none /sys
mount -t bpf none /sys/fs/bpf
mount -t tmpfs none /tmp
mount -t tmpfs none /run
mount -t cgroup2 none /sys/fs/cgroup
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
/bin/ip link set lo up

while read -r module; do
  insmod "/modules/$module.ko" || echo "module $module was refused"
done </modules/order

read -r version </proc/sys/kernel/osrelease
read -r up _ </proc/uptime
echo "kernel $version, ready after $up s"

cd /tmp
# On an old kernel maps count against this.
ulimit -l unlimited
/bin/sh /test
result=$?

read -r up _ </proc/uptime
echo "test ended after $up s"
echo "guest result: $result"
reboot -f
