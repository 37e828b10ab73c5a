"""Machine images: trees that are cached and stacked, and the bootable disks that are made of them."""
