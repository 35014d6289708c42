#!/bin/sh
# How the images here were made, by qemu-img and qemu-io 7.2.
set -e
q() { qemu-img "$@" >/dev/null; }
io() { f=$1; shift; qemu-io -f qcow2 "$@" "$f" >/dev/null; }
truncate -s 1M base.raw

q create -f qcow2 -b base.raw -F raw -o cluster_size=4096 everything.qcow2 1M
io everything.qcow2 -c 'write -P 1 5000 60000' -c 'write -c -P 2 131072 4096' -c 'write -c -P 3 135168 4096' -c 'write -z 200000 30000' -c 'write -z -u 262144 8192'
q snapshot -c one everything.qcow2
q bitmap --add -g 4096 everything.qcow2 b0
q bitmap --add --disable everything.qcow2 b1
io everything.qcow2 -c 'write -P 4 20000 30000' -c 'discard 131072 4096' -c 'write -c -P 5 303104 4096'
q snapshot -c two everything.qcow2
io everything.qcow2 -c 'write -P 6 900000 100000'

q create -f qcow2 -o compat=0.10,cluster_size=512 v2.qcow2 256k
io v2.qcow2 -c 'write -P 1 700 30000' -c 'write -c -P 2 65536 512' -c 'write -z 100000 3000'
q snapshot -c one v2.qcow2
io v2.qcow2 -c 'write -P 3 1000 9000' -c 'discard 20480 4096'

q create -f qcow2 -o extended_l2=on,cluster_size=16k subclusters.qcow2 1M
io subclusters.qcow2 -c 'write -P 1 700 3000' -c 'write -z 8192 1024' -c 'write -P 2 100000 70000' -c 'write -c -P 3 262144 16384' -c 'write -z -u 300000 100000'
q snapshot -c one subclusters.qcow2
q bitmap --add subclusters.qcow2 b0
io subclusters.qcow2 -c 'write -P 4 1000 20000' -c 'discard 131072 16384'

q create -f qcow2 -o compression_type=zstd,cluster_size=4096 zstd.qcow2 256k
io zstd.qcow2 -c 'write -P 1 700 30000' -c 'write -c -P 2 65536 4096' -c 'write -c -P 3 69632 4096'

q create -f qcow2 -o data_file=data.raw,data_file_raw=on,cluster_size=4096 datafile.qcow2 256k
io datafile.qcow2 -c 'write -P 1 700 30000' -c 'write -z 65536 8192' -c 'discard 8192 4096'
rm data.raw

q create -f qcow2 -o refcount_bits=1,cluster_size=512 narrow.qcow2 128k
io narrow.qcow2 -c 'write -P 1 700 30000'
q create -f qcow2 -o refcount_bits=64,cluster_size=512,lazy_refcounts=on wide.qcow2 128k
io wide.qcow2 -c 'write -P 1 700 30000'
q snapshot -c one wide.qcow2
gzip -9n *.qcow2; rm base.raw
