"""OCI runtimes: where their binaries are, what their command lines and files say."""
