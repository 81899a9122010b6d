# Managed by Ansible, role fushuma.production.sentry. What differs between hosts is in production.json.
import json
import os
from pathlib import Path

from bugsink.settings import default

# As `import *` would, whose names no tool finds.
globals().update({name: value for name, value in vars(default).items() if name.isupper()})
DATABASES, INSTALLED_APPS, LOGGING = default.DATABASES, default.INSTALLED_APPS, default.LOGGING

_told = json.loads(Path("/etc/bugsink/production.json").read_text("utf-8"))
_secrets = json.loads(Path(os.environ["BUGSINK_SECRETS"]).read_text("utf-8"))

SECRET_KEY = _secrets["key"]
ALLOWED_HOSTS = _told["hosts"]
BUGSINK = _told["bugsink"]
TIME_ZONE = "UTC"

# nginx says how it was spoken to, and by whom.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
USE_X_REAL_IP = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True

_data = Path("/var/lib/bugsink")
DATABASES["snappea"]["NAME"] = str(_data / "snappea.sqlite3")
DATABASES["default"]["NAME"] = str(_data / "db.sqlite3")
if _told["database"]["kind"] == "mariadb":
    _database = _told["database"]
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.mysql",
        "NAME": _database["name"],
        "USER": _database["user"],
        "PASSWORD": _secrets["db"],
        "HOST": _database["host"],
        "PORT": _database["port"] if _database["host"] else "",
        "OPTIONS": {"charset": "utf8mb4"},
    }

SNAPPEA = {
    "TASK_ALWAYS_EAGER": False,
    "NUM_WORKERS": 4,
    "PID_FILE": None,
    "WAKEUP_CALLS_DIR": str(_data / "wakeup"),
    "STATS_RETENTION_MINUTES": 60 * 24 * 7,
}

_mail = _told["mail"]
if _mail["host"]:
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    EMAIL_HOST, EMAIL_PORT = _mail["host"], _mail["port"]
    EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["user"], _secrets["mail"]
    EMAIL_USE_TLS, EMAIL_USE_SSL = _mail["tls"] == "starttls", _mail["tls"] == "tls"
else:
    EMAIL_BACKEND = "bugsink.email_backends.QuietConsoleEmailBackend"
SERVER_EMAIL = DEFAULT_FROM_EMAIL = _mail["from"]

# At INFO it would write down what each task is given, addresses of webhooks among it.
LOGGING["loggers"]["snappea"]["level"] = "WARNING"

if _told["former_keys"]:
    INSTALLED_APPS += ["bugsink_keys.Keys"]
    FORMER_KEYS = _told["former_keys"]
