#!/bin/sh
# An image of one program, for there is no registry to fetch one from, and containers that run before the role comes.
set -eu
mkdir -p /srv/image
cp /usr/bin/busybox /srv/image
tar --create --directory=/srv/image . | docker import - small
docker run --detach --name before small /busybox sleep 1000000
docker inspect --format '{{.State.Pid}}' before >/srv/before
