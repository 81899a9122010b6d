"""Unit tests find the collection's plugins as Ansible finds them."""

from __future__ import annotations

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()
