# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Throw-away Debian hosts: systemd machines in containers, reached over SSH like any other host."""

from __future__ import annotations
