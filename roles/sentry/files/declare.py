# Managed by Ansible, role fushuma.production.sentry. Run by `bugsink-manage shell`; WANTED is JSON.
import json
import uuid

from alerts.models import MessagingServiceConfig
from bsmain.models import AuthToken
from bugsink.transaction import immediate_atomic
from projects.models import Project, ProjectMembership
from teams.models import Team
from users.models import User

OWN = "declared: "


def declare(wanted):
    team, _made = Team.objects.get_or_create(name=wanted["organisation"])
    admin(wanted["admin"])
    for one in wanted["projects"]:
        services(project(one, team), one["services"])
        members(one)
    tokens(wanted["tokens"])


def admin(wanted):
    user = User.objects.filter(username=wanted["email"]).first()
    if user is None:
        User.objects.create_superuser(wanted["email"], wanted["email"], wanted["password"])
        return
    if not (user.is_superuser and user.is_active and user.check_password(wanted["password"])):
        user.is_superuser = user.is_staff = user.is_active = True
        user.set_password(wanted["password"])
        user.save()


def project(wanted, team):
    key = uuid.UUID(wanted["key"])
    found = Project.objects.filter(id=wanted["number"]).first()
    if found is None:
        found = Project(id=wanted["number"])
    elif found.name != wanted["name"] and found.sentry_key != key:
        raise SystemExit(
            f"{wanted['number']} is the number of the project {found.name} already; give {wanted['name']} another"
        )
    found.name, found.team, found.sentry_key, found.is_deleted = wanted["name"], team, key, False
    found.retention_max_event_count = wanted["events"]
    found.alert_on_new_issue = found.alert_on_regression = found.alert_on_unmute = wanted["alerts"]
    found.save()
    return found


def services(found, wanted):
    kept = []
    for number, one in enumerate(wanted):
        name = f"{OWN}{one['kind']} {number}"
        config = json.dumps({"webhook_url": one["url"]})
        MessagingServiceConfig.objects.update_or_create(
            project=found, display_name=name, defaults={"kind": one["kind"], "config": config}
        )
        kept.append(name)
    of_ours = MessagingServiceConfig.objects.filter(project=found, display_name__startswith=OWN)
    of_ours.exclude(display_name__in=kept).delete()


def members(wanted):
    for address in wanted["mails"]:
        user = User.objects.filter(username=address).first()
        if user is None:
            # Without a password nobody logs in as them until they ask for one.
            user = User.objects.create_user(address, address, None)
        ProjectMembership.objects.update_or_create(
            project_id=wanted["number"], user=user, defaults={"accepted": True, "send_email_alerts": True}
        )
    for other in ProjectMembership.objects.filter(project_id=wanted["number"]).exclude(
        user__username__in=wanted["mails"]
    ):
        if not other.user.has_usable_password():
            other.delete()


def tokens(wanted):
    for one in wanted:
        rights = dict.fromkeys(one["rights"], True)
        AuthToken.objects.filter(description=OWN + one["name"]).exclude(token=one["token"]).delete()
        AuthToken.objects.update_or_create(token=one["token"], defaults={"description": OWN + one["name"], **rights})
    named = [OWN + one["name"] for one in wanted]
    AuthToken.objects.filter(description__startswith=OWN).exclude(description__in=named).delete()


with immediate_atomic():
    declare(json.loads(globals()["WANTED"]))
