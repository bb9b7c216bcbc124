#!/bin/bash
# prepare.sh DIR SUITE: make DIR/root (a guest's root file system, unpacked from the packages of a
# Debian release), DIR/vmlinux and DIR/initrd.gz. Needs no root rights and installs nothing here.
#   DEBIAN_MIRROR   where to take packages from (default: the mirror that apt uses here)
#   SYSTEM_PYTHON   a Python with pip and tomllib (default: python3)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(realpath "$here/../..")
dir=$(realpath -m "$1") suite=$2
root=$dir/root
host_python=${SYSTEM_PYTHON:-python3}
mkdir -p "$dir"/apt/{lists/partial,cache/archives/partial} \
    "$root"/{usr/{bin,sbin,lib,lib64},proc,sys,dev,run,tmp,root,var/lib}

# The release's packages, through an apt state of its own.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' | grep -v security | head -n 1)}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" \
    > "$dir/apt/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=-
     -o "Dir::State::lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache"
     -o Dir::State::status=/dev/null -o Debug::NoLocking=1 -o APT::Sandbox::User=
     -o Acquire::Languages=none -o APT::Architecture=amd64 -o APT::Architectures=amd64)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends --download-only \
    linux-image-amd64 bluez dbus-daemon dbus-system-bus-common python3 mosquitto \
    busybox-static kmod bash coreutils mount base-files base-passwd > /dev/null
for d in bin sbin lib lib64; do [ -e "$root/$d" ] || ln -s "usr/$d" "$root/$d"; done
[ -e "$root/var/run" ] || ln -s ../run "$root/var/run"
# What only an installation or a start by systemd would use.
unused='/(systemd|initramfs-tools|linux-base|perl|gcc-1|debconf|dpkg|apt|e2fsprogs|klibc)[^/]*$'
for deb in "$dir"/apt/cache/archives/*.deb; do
    [[ $deb =~ $unused ]] || dpkg-deb --fsys-tarfile "$deb" |
        tar -x --keep-directory-symlink --no-same-owner -C "$root" \
            --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
            --exclude='*/kernel/sound' --exclude='*/kernel/drivers/gpu' \
            --exclude='*/kernel/drivers/media' --exclude='*/kernel/drivers/net' \
            --exclude='*/kernel/drivers/scsi' --exclude='*/kernel/drivers/i*'
done
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
echo 'messagebus:x:100:100::/nonexistent:/usr/sbin/nologin' >> "$root/etc/passwd"
echo 'messagebus:x:100:' >> "$root/etc/group"
[ -e "$root/bin/sh" ] || ln -s bash "$root/bin/sh"

# Wheels for the guest's Python: what fastprovd and its system test ask for.
python=$(basename "$(readlink "$root/usr/bin/python3")")
"$host_python" "$here/requirements.py" "$project/pyproject.toml" > "$dir/requirements.txt"
"$host_python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location --no-warn-conflicts \
    --target "$root/opt/site" --upgrade --python-version "${python#python}" \
    --only-binary=:all: --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
    --requirement "$dir/requirements.txt"
# Compiled here by the guest's own interpreter, because the guest is slow and its root read-only.
"$here/guest-python.sh" "$root" \
    -m compileall -q -s "$root" "$root/opt/site" "$root/usr/lib/$python" \
    > "$dir/compileall.log" || true # some wheels carry files for other versions of Python

# The kernel as plain ELF image: it starts without BIOS loader and decompression.
kernel=$(ls "$root/lib/modules")
depmod -b "$root" "$kernel"
"$host_python" "$here/extract_kernel.py" "$root"/boot/vmlinuz-* "$dir/vmlinux"

# An initramfs of busybox and the modules that lead to the 9p root.
initramfs=$dir/initramfs
mkdir -p "$initramfs"/{bin,modules,proc,lower,upper,newroot}
cp "$root/bin/busybox" "$initramfs/bin/"
cp "$here/initramfs-init.sh" "$initramfs/init"
chmod +x "$initramfs/init"
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "$root" -S "$kernel" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r path; do
    case $path in
        *.xz) xz -dc "$path" > "$initramfs/modules/$(basename "$path" .xz)" ;;
        *) cp "$path" "$initramfs/modules/" ;;
    esac
    basename "$path" .xz >> "$initramfs/modules/order"
done
(cd "$initramfs" && find . | cpio -o -H newc --quiet | gzip -1) > "$dir/initrd.gz"

"$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \
    "$root/usr/libexec/bluetooth/bluetoothd" --version > "$dir/bluez-version"
rm -rf "$dir/apt" "$initramfs"
