"""What the `image.*` tasks call, and the lines and tables that they print."""
