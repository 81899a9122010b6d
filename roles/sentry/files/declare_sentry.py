# Managed by Ansible, role fushuma.production.sentry. Run by `sentry exec`; what is wanted is JSON on standard input.
import json
import sys

from sentry.models.organization import Organization
from sentry.models.organizationmember import OrganizationMember
from sentry.models.organizationmemberteam import OrganizationMemberTeam
from sentry.models.project import Project
from sentry.models.projectkey import ProjectKey
from sentry.models.team import Team
from sentry.users.models.user import User


def declare(wanted):
    slug = wanted["organisation"]
    organisation = Organization.objects.filter(slug=slug).first() or Organization.objects.first()
    if organisation is None:
        organisation = Organization.objects.create(name=slug, slug=slug)
    team, _made = Team.objects.get_or_create(organization=organisation, slug=slug, defaults={"name": slug})
    admin(wanted["admin"], organisation, team)
    for one in wanted["projects"]:
        project(one, organisation, team)


def admin(wanted, organisation, team):
    user = User.objects.filter(username=wanted["email"]).first()
    if user is None:
        user = User(username=wanted["email"], email=wanted["email"])
    user.is_superuser = user.is_staff = user.is_active = True
    if not user.check_password(wanted["password"]):
        user.set_password(wanted["password"])
    user.save()
    member, _made = OrganizationMember.objects.get_or_create(
        organization=organisation, user_id=user.id, defaults={"role": "owner"}
    )
    OrganizationMemberTeam.objects.get_or_create(team=team, organizationmember=member)


def project(wanted, organisation, team):
    found = Project.objects.filter(id=wanted["number"]).first()
    if found is None:
        found = Project.objects.create(
            id=wanted["number"], name=wanted["name"], slug=wanted["name"], organization=organisation
        )
    found.add_team(team)
    # Another key stays until somebody revokes it: applications may still have it.
    ProjectKey.objects.get_or_create(
        project=found, public_key=wanted["key"], defaults={"secret_key": wanted["key"], "label": "declared"}
    )


declare(json.load(sys.stdin))
