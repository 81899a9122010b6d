# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Trusted Types, on trial beside the enforced policy and in it, in a real browser."""

from __future__ import annotations

from browser.visiting import Sites, Visit

DIRECTIVE = "require-trusted-types-for"


def test_on_trial_the_page_works_and_reports(sites: Sites, visit: Visit, mark: str) -> None:
    visit.go(sites.url("trial.localhost", f"/{mark}"))
    visit.wait("ready")
    assert (visit.page.inner_text("#typed"), visit.page.inner_text("#plain")) == ("typed", "plain")
    assert visit.data("refused") is None
    report = sites.wait_for_report(mark, DIRECTIVE)
    assert (report["disposition"], report["blockedURL"]) == ("report", "trusted-types-sink")
    assert [one["effectiveDirective"] for one in sites.reports(mark)] == [DIRECTIVE]


def test_enforced_they_stop_plain_text_and_let_the_named_policy_write(sites: Sites, visit: Visit, mark: str) -> None:
    visit.go(sites.url("typed.localhost", f"/{mark}"))
    visit.wait("ready")
    assert (visit.page.inner_text("#typed"), visit.page.inner_text("#plain")) == ("typed", "")
    assert visit.data("refused") == "TypeError"
    assert sites.wait_for_report(mark, DIRECTIVE)["disposition"] == "enforce"


def test_enforced_they_let_no_other_policy_be_made(sites: Sites, visit: Visit, mark: str) -> None:
    visit.go(sites.url("typed.localhost", f"/{mark}"))
    visit.wait("ready")
    made = visit.page.evaluate(
        "() => { try { trustedTypes.createPolicy('another', {}); return 'made' } catch (error) { return error.name } }"
    )
    assert made == "TypeError"
    sites.wait_for_report(mark, "trusted-types")
