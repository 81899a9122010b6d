# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Content-Security-Policy as data: the one place to import it from. docs/csp.md explains it to those who use it.

- csp_policy: a policy read, written and extended
- csp_judge: what is wrong with a policy, by the tables of csp_rules and csp_hosts
- csp_waivers: what of that is allowed for a time, and what is left as a problem
- csp_hashes: what a built page needs in its policy
"""

from __future__ import annotations

from ansible_collections.fushuma.production.plugins.plugin_utils.csp_hashes import HashResult, hashes, page_problems
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_judge import Finding, findings
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_policy import Policy, header, merge, parse
from ansible_collections.fushuma.production.plugins.plugin_utils.csp_waivers import problems

__all__ = [
    "Finding",
    "HashResult",
    "Policy",
    "findings",
    "hashes",
    "header",
    "merge",
    "page_problems",
    "parse",
    "problems",
]
