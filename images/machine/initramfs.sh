#!/bin/sh
# initramfs.sh TREE: what initramfs-tools is to find when the kernel comes into TREE. An initrd with the drivers of the
# disks that clouds and hypervisors offer, where the kernel has them not built in (NVMe and ext4), instead of all there
# are: it is made faster, boots faster, and is 7 MB smaller.
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf '%s\n' MODULES=list COMPRESS=zstd RESUME=none >"$1/etc/initramfs-tools/conf.d/goldsmith.conf"
printf '%s\n' virtio_blk virtio_scsi sd_mod xen_blkfront hv_storvsc ahci \
    >"$1/usr/share/initramfs-tools/modules.d/goldsmith"
