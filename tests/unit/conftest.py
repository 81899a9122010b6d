"""Unit tests find the collection's plugins as Ansible finds them, and try the same examples on every run."""

from __future__ import annotations

import os

from ansible.plugins.loader import init_plugin_loader
from hypothesis import settings

init_plugin_loader()

# A proof says the same of the same code twice, however busy the machine is.
# `HYPOTHESIS_PROFILE=explore` looks for new counterexamples.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
