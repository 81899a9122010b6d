#!/bin/sh
# Notes each container, and since when it runs.
set -eu
docker ps --quiet | xargs docker inspect --format '{{.Name}} {{.State.StartedAt}}' | sort >/srv/started
