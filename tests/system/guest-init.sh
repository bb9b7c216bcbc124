#!/bin/bash
# First process of the guest's own system: runs the command from the control share with its output
# on the second serial port, leaves its exit status in the share and switches the guest off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
control=/run/control
stamp() { read -r uptime _ < /proc/uptime; echo "$1 $uptime" >> $control/stamps; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2> /dev/null
mkdir -p /dev/shm /run/dbus /var/lib/bluetooth /var/lib/dbus /project
mount -t tmpfs tmpfs /dev/shm
chmod 1777 /tmp
stamp shell
options=trans=virtio,version=9p2000.L,msize=524288
mount -t 9p -o "ro,cache=loose,$options" project /project
export PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1
busybox ifconfig lo 127.0.0.1 up
busybox hostname gateway
tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
modprobe hci_vhci || echo "guest-init: no hci_vhci"
cd /project || exit
stamp command
bash $control/command < /dev/null > /dev/ttyS1 2>&1
echo $? > $control/status
stamp done
busybox sync
busybox poweroff -f
