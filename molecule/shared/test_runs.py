"""What holds for every scenario, whichever role it is about."""

from __future__ import annotations

from plays import SECRET
from runs import Run, all_runs
from testinfra.host import Host


def applied() -> list[Run]:
    """The runs of the scenario's play: first the dry one on the bare host."""
    return [run for run in all_runs() if run.changed and "localhost" not in run.changed]


def test_the_dry_run_on_the_bare_host_foresees_changes() -> None:
    first = applied()[0]
    assert first.is_dry
    assert all(first.changed.values()), first.changed


def test_a_dry_run_after_the_converge_reports_no_change() -> None:
    last = applied()[-1]
    assert last.is_dry, "the last run was not dry: run `molecule check` before `molecule verify`"
    assert not any(last.changed.values()), last.text


def test_no_run_has_shown_a_secret() -> None:
    shown = [line for run in all_runs() for line in run.text.splitlines() if SECRET.search(line)]
    assert not shown, shown


def test_no_secret_is_in_the_hosts_journal(host: Host) -> None:
    journal = host.check_output("journalctl --no-pager --output=cat")
    assert "ansible" in journal.lower(), "the journal does not hold what Ansible's modules log"
    assert not [line for line in journal.splitlines() if SECRET.search(line)]
