"""Machine images at AWS: snapshots written block by block, images registered, dated, copied, shared, and retired."""
