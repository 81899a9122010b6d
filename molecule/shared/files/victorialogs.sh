#!/bin/bash
# Builds VictoriaLogs, a store of logs that takes what Loki takes, out of Debian 13's own source packages: a program that
# runs on either release.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends golang-go gcc libc6-dev libzstd-dev \
    golang-github-victoriametrics-{victoriametrics,metricsql,metrics,fastcache,easyproto}-dev \
    golang-github-valyala-{fastjson,quicktemplate,fastrand,gozstd,histogram,fasttemplate}-dev \
    golang-github-klauspost-compress-dev golang-github-cespare-xxhash-dev golang-gopkg-yaml.v2-dev \
    golang-golang-x-sys-dev golang-golang-x-oauth2-dev >/dev/null
cd /usr/share/gocode/src/github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-logs
GO111MODULE=off GOPATH=/usr/share/gocode HOME=/root go build -tags netgo,osusergo \
    -ldflags '-s -w -linkmode external -extldflags "-static"' -o "$1" .
