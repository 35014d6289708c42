#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""stuck.py URI: asks an NBD server for 64 MiB at once, says so, and never reads an answer. Ends with its stdin."""
import sys
import nbd

client = nbd.NBD()
client.connect_uri(sys.argv[1])
size = client.get_size()
step = 1 << 20
buffers = [nbd.Buffer(step) for _ in range(64)]
for n, buffer in enumerate(buffers):
    client.aio_pread(buffer, n * step % size)
print("asked for", len(buffers), "MiB", flush=True)
sys.stdin.read()
