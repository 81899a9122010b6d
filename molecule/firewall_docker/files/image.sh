#!/bin/sh
# An image of one program and one page; there is no registry to fetch one from.
set -eu
tar --create --directory=/srv/image . | docker import - small
touch /srv/image.made
