"""The local content store: blobs, layers and images in OCI form, and what of them may go."""
