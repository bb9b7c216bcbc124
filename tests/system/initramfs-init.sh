#!/bin/busybox sh
# First process of the guest: mounts the prepared root read-only under a RAM disk and goes there.
busybox mount -t proc proc /proc
for module in $(busybox cat /modules/order); do
    busybox insmod "/modules/$module" || echo "insmod $module failed"
done
options=trans=virtio,version=9p2000.L,msize=524288
busybox mount -t 9p -o "ro,cache=loose,$options" guestroot /lower || echo "no guestroot"
busybox mount -t tmpfs -o size=80% tmpfs /upper
busybox mkdir /upper/data /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot
busybox mkdir -p /newroot/run/control
busybox mount -t 9p -o "cache=none,$options" control /newroot/run/control || echo "no control"
busybox umount /proc
exec busybox switch_root /newroot /bin/bash /run/control/guest-init.sh
