# Managed by Ansible, role fushuma.production.sentry.
"""Bugsink knows one key of each project. While a key is changed, the one before has to count too."""

from django.apps import AppConfig
from django.conf import settings


class Keys(AppConfig):
    name = "bugsink_keys"
    path = "/etc/bugsink"

    def ready(self):
        from ingest.views import BaseIngestAPIView

        present = {number: (one["former"], one["key"]) for number, one in settings.FORMER_KEYS.items()}
        asked = BaseIngestAPIView.get_project.__func__

        def get_project(cls, project_pk, sentry_key):
            former, key = present.get(str(project_pk), (None, None))
            given = str(sentry_key).replace("-", "").lower()
            return asked(cls, project_pk, key if given == former else sentry_key)

        BaseIngestAPIView.get_project = classmethod(get_project)
