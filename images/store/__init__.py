"""The local content store: blobs, layers and images in OCI form, and which of them may be removed."""
